"""delay.py PORT TARGET MILLISECONDS: leads connections to PORT on to TARGET, both on the loopback address; whatever a client sends comes so
much later."""
import asyncio
import sys

port, target, delay = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) / 1000


async def pump(reader, writer, delay):
    try:
        while data := await reader.read(65536):
            if delay:
                await asyncio.sleep(delay)
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def connected(reader, writer):
    other_reader, other_writer = await asyncio.open_connection("127.0.0.1", target)
    await asyncio.gather(pump(reader, other_writer, delay), pump(other_reader, writer, 0))


async def main():
    server = await asyncio.start_server(connected, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main())
