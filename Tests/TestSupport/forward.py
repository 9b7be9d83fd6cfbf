"""forward.py PORT TARGET [WORD [MILLISECONDS]]: leads connections to PORT on to TARGET, both on the loopback address, or TARGET the path of
a socket; prints a line when it listens. From a request with WORD on (unless it is empty) it hands nothing on: the connection stays, and is
silent. What a client sends is handed on after MILLISECONDS."""
import asyncio
import sys

port, target = int(sys.argv[1]), sys.argv[2]
word = sys.argv[3].encode() if len(sys.argv) > 3 else None
delay = int(sys.argv[4]) / 1000 if len(sys.argv) > 4 else 0


async def pump(reader, writer, delay=0):
    try:
        while data := await reader.read(65536):
            if delay:
                await asyncio.sleep(delay)
            if word and word in data:
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def connected(reader, writer):
    try:
        if target.startswith("/"):
            other_reader, other_writer = await asyncio.open_unix_connection(target)
        else:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", int(target))
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, other_writer, delay), pump(other_reader, writer))


async def main():
    server = await asyncio.start_server(connected, "127.0.0.1", port)
    print("listening", flush=True)
    await server.serve_forever()


asyncio.run(main())
