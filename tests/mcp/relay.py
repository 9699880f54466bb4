"""Dials for a test: runs as the managed host, so that what a test sends through it is the host's traffic.

relay.py SOCKET: each connection to the Unix socket begins with a line `HOST PORT`.
"""
import asyncio
import sys


async def copy(source, sink):
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


async def serve(reader, writer):
    host, port = (await reader.readline()).split()
    try:
        far_reader, far_writer = await asyncio.open_connection(host.decode(), int(port))
    except OSError as error:
        writer.write(f"relay: {error}".encode())
        writer.close()
        return
    await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))


async def main():
    server = await asyncio.start_unix_server(serve, sys.argv[1])
    print('{"ready":true}', flush=True)
    await server.serve_forever()


asyncio.run(main())
