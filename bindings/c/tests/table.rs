//! Calls every function of the header with every combination of right and wrong arguments, on handles that are alive,
//! closed, without their socket, after a caught panic, and from within the log callback.
//!
//! The functions are read from the header, so that none can be forgotten; `tests/c/table.h` has the values for each
//! type of argument, what is to be expected, and the program. It runs under the sanitisers where they are there.

mod support;

use std::{fmt::Write as _, fs, path::Path};

use support::{Server, Way, assert_success, cargo_build, compile_with, root, run};

/// A function of the header.
#[derive(Debug, PartialEq, Eq)]
struct Prototype {
    returns: String,
    name: String,
    /// The types of its parameters.
    parameters: Vec<String>,
}

/// All functions of a header, whose functions stand within `extern "C"`.
fn prototypes(header: &str) -> Vec<Prototype> {
    let (_, mut text) = header.split_once("extern \"C\" {").expect("the functions are in extern C");
    let mut code = String::new();
    while let Some((before, rest)) = text.split_once("/**") {
        code.push_str(before);
        text = rest.split_once("*/").expect("a comment has an end").1;
    }
    let code = code + text;
    let (_, code) = code.split_once("#endif").expect("the brace is for C++ only");
    let (_, code) = code.split_once('\n').expect("and is on lines of its own");
    let code = code.split_once("#ifdef").map_or(code, |(functions, _)| functions);
    code.split_terminator(';').filter(|text| !text.trim().is_empty()).map(prototype).collect()
}

fn prototype(text: &str) -> Prototype {
    let (start, parameters) = text.split_once('(').expect("a function has parameters");
    let parameters = parameters.trim_end().strip_suffix(')').expect("and they end");
    let (returns, name) = typed(start);
    let parameters = parameters.split(',').filter(|text| text.trim() != "void").map(|text| typed(text).0).collect();
    Prototype { returns, name, parameters }
}

/// A type and the name after it.
fn typed(text: &str) -> (String, String) {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let name = text.rfind([' ', '*']).expect("a type and a name") + 1;
    (text[..name].trim_end().to_owned(), text[name..].to_owned())
}

/// The list of values in table.h for a type.
fn values(prototype: &Prototype, parameter: &str) -> String {
    let plain = parameter.replace("struct holepunch_", "").replace("holepunch_", "");
    let name = match plain.as_str() {
        "const char *" => "text",
        "char *" => "text_buffer",
        "const char **" => "out_text",
        "const uint8_t *" => "bytes",
        "uint8_t *" => "buffer",
        "size_t" => "size",
        "int64_t" => "time",
        "int32_t" => "number",
        "size_t *" => "out_size",
        "int64_t *" => "out_time",
        "uint64_t *" => "out_number",
        "socket_t *" => "out_socket",
        _ => {
            let (kind, stars) = plain.rsplit_once(' ').unwrap_or((&plain, ""));
            let given = kind.starts_with("const ");
            match (kind.trim_start_matches("const ").strip_suffix("_t"), stars) {
                (Some(kind), "*") if given => return format!("given_{kind}"),
                (Some(kind), "*") => return kind.to_owned(),
                (Some(kind), "**") => return format!("out_{kind}"),
                _ => panic!("{}: tests/table.rs knows no values for {parameter:?}", prototype.name),
            }
        }
    };
    name.to_owned()
}

/// The program: one caller for each function, and the table of them.
fn program(prototypes: &[Prototype]) -> String {
    let (mut callers, mut table) = (String::new(), String::new());
    for (index, prototype) in prototypes.iter().enumerate() {
        let Prototype { returns, name, parameters } = prototype;
        let mut arguments = Vec::new();
        let mut kinds = Vec::new();
        for parameter in parameters {
            if parameter == "struct holepunch_error_t **" {
                arguments.push("error".to_owned());
                continue;
            }
            let values = values(prototype, parameter);
            arguments.push(format!("{values}_values[pick[{}]]", kinds.len()));
            kinds.push(format!("&{values}_kind"));
        }
        let call = format!("{name}({})", arguments.join(", "));
        let body = match returns.as_str() {
            "int32_t" | "int" => format!("return {call};"),
            "const char *" => format!("return {call} == NULL ? -1 : HOLEPUNCH_OK;"),
            // Handles are freed in their own place, once each.
            "void" => continue,
            other => panic!("{name} returns {other:?}"),
        };
        let reports = parameters.iter().any(|parameter| parameter == "struct holepunch_error_t **");
        let _ = writeln!(
            callers,
            "static int32_t call_{index}(const size_t *pick, holepunch_error_t **error) {{\n    (void)pick, (void)error;\n    {body}\n}}\n"
        );
        kinds.push("NULL".to_owned());
        let _ = writeln!(table, "    {{\"{name}\", call_{index}, {}, {{{}}}}},", i32::from(reports), kinds.join(", "));
    }
    format!(
        "#include \"table.h\"\n\n{callers}static const struct function FUNCTIONS[] = {{\n{table}}};\n\n\
         int main(void) {{\n    return run_table(FUNCTIONS, sizeof FUNCTIONS / sizeof *FUNCTIONS);\n}}\n"
    )
}

#[test]
fn the_header_is_read() {
    let header = "extern \"C\" {\n#endif\n/** Says; it. */\nconst char *a(void);\n\n/** Does. */\nint32_t b(struct x_t *x,\n  size_t *n);\n#ifdef __cplusplus\n}";
    let read = |returns: &str, name: &str, parameters: &[&str]| Prototype {
        returns: returns.to_owned(),
        name: name.to_owned(),
        parameters: parameters.iter().map(|text| (*text).to_owned()).collect(),
    };
    assert_eq!(
        prototypes(header),
        [read("const char *", "a", &[]), read("int32_t", "b", &["struct x_t *", "size_t *"])]
    );
}

#[test]
fn every_function_with_every_argument() {
    let header = fs::read_to_string(root().join("include/holepunch.h")).expect("the header is there");
    let prototypes = prototypes(&header);
    let mut names: Vec<&str> = prototypes.iter().map(|prototype| prototype.name.as_str()).collect();
    names.sort_unstable();
    let exported: Vec<&str> = include_str!("../exports.txt").lines().collect();
    assert_eq!(names, exported, "the header is read to its end");
    for prototype in prototypes.iter().filter(|prototype| prototype.returns == "void") {
        let call = format!("{}(", prototype.name);
        assert!(include_str!("c/table.h").contains(&call), "tests/c/table.h does not call {call}");
    }

    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("table.c");
    fs::write(&source, program(&prototypes)).expect("the program can be written");
    let library = cargo_build(&["--package", "holepunch-c", "--example", "panicking"]).join("examples");
    let way = if Way::Sanitised.is_there("table.c under sanitisers") { Way::Sanitised } else { Way::Plain };
    let (directory, path) = (format!("-L{}", library.display()), format!("-Wl,-rpath,{}", library.display()));
    let program = compile_with(&source, way, &[&directory, "-lpanicking", &path]);
    let server = Server::start();
    assert_success(&run(way.program(&program).env("HOLEPUNCH_SERVER", &server.address)));
}
