//! The lab for scripts and other languages; see `USAGE`.

mod demo;
mod plan;

use natlab::LabError;
use plan::Plan;
use std::process::ExitCode;

const USAGE: &str = "\
natlab demo

Shows two peers behind two NATs finding a direct path, step by step; on the loopback interface where
namespaces are not allowed. Runs the command that HOLEPUNCH_BIN names, or builds it.
Status: 0 when everything worked, 1 otherwise.

natlab run [--left KIND] [--right KIND] [--ipv6] [options of the model] -- COMMAND...

Makes a public server and two clients, each behind a border of its KIND, runs COMMAND outside of
them, and removes everything. COMMAND finds the namespaces, for `ip netns exec`, and the server's
address in its environment: NATLAB_SERVER, NATLAB_LEFT, NATLAB_RIGHT, NATLAB_ADDRESS.
Status: COMMAND's; 2 for wrong usage; 77 where namespaces are not allowed; 1 otherwise.

KIND is one of Linux's own routers, or one of the simulator's, in real time:
  masquerade (the default), masquerade-reset, fully-random, firewall, none
  MAPPING_FILTERING_PORTS: eim, adm or apdm; eif, adf or apdf; preserving, sequential or random
      (endpoint-independent, address-dependent, address- and port-dependent; RFC 4787):
      such as eim_apdf_preserving or apdm_apdf_random
  model-firewall

Options of the model, which then also carries what Linux's routers send:
  --delay MS      each way between a client and the internet; four of them are a round trip between clients
  --jitter MS     up to so much more, by chance
  --loss PERCENT  each way between a client and the internet
  --reset         the model's borders answer an unsolicited SYN with a RST; otherwise they are silent
  --hairpin       the model's NATs turn round what is sent to themselves
  --lifetime S    of the model's mappings (120)
  --seed N        of everything that is left to chance (1)

    natlab run --left eim_apdf_random --right apdm_eif_sequential --delay 20 --loss 5 -- \\
        sh -c 'ip netns exec $NATLAB_LEFT ...'";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["demo"] {
        return demo::run();
    }
    let Some(plan) = Plan::parse(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match plan.run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("natlab: {error}");
            ExitCode::from(if matches!(error, LabError::NotAllowed(_)) { 77 } else { 1 })
        }
    }
}
