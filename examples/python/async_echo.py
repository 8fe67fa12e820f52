"""With asyncio: serves any number of peers at once, or sends each message at once and prints the answers.

    async_echo.py listen NAME
    async_echo.py connect NAME [MESSAGE...]      the server comes from HOLEPUNCH_SERVER
"""

import asyncio
import sys
from typing import List

import holepunch


async def listen(name: str) -> None:
    async with holepunch.aio.listen(name) as listener:
        print(f"listening as {listener.name}", file=sys.stderr)
        serving = set()
        async for stream in listener:
            task = asyncio.ensure_future(echo(stream))
            serving.add(task)
            task.add_done_callback(serving.discard)


async def echo(stream: holepunch.aio.Stream) -> None:
    async with stream:
        while True:
            data = await stream.recv()
            if not data:
                break
            await stream.sendall(data)


async def connect(name: str, messages: List[str]) -> None:
    async with holepunch.aio.Endpoint() as endpoint:
        for answer in await asyncio.gather(*(ask(endpoint, name, message) for message in messages)):
            print(answer)


async def ask(endpoint: holepunch.aio.Endpoint, name: str, message: str) -> str:
    async with endpoint.connect(name) as stream:
        await stream.sendall(message.encode())
        stream.shutdown()
        answer = b""
        while True:
            data = await stream.recv(timeout=5)
            if not data:
                return answer.decode()
            answer += data


def main() -> None:
    if len(sys.argv) < 3 or sys.argv[1] not in ("listen", "connect"):
        print("usage: async_echo.py {listen NAME | connect NAME [MESSAGE...]}", file=sys.stderr)
        sys.exit(2)
    command, name, *messages = sys.argv[1:]
    asyncio.run(listen(name) if command == "listen" else connect(name, messages))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except holepunch.HolepunchError as error:
        sys.exit(str(error))
