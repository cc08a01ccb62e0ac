#!/usr/bin/env python3
"""Sends bad input to a live broker, which must keep serving a well-behaved client.

    bad-input.py --bootstrap HOST:PORT [--pid PID [--rss-max-mib N]] [--log FILE] [--phases a,b,..]

Phases, each with its own kind of misbehaving peer:

    random     connections full of random bytes
    truncated  valid frames cut at every length, then closed or reset
    lengths    frame lengths of 2^31-1, negative, zero, past socket.request.max.bytes: closed at once; and the longest
               allowed length, begun and left: the broker allocates no memory for missing bytes
    unknown    unknown API keys and versions: closed, and ApiVersions answered with error 35 and its own range (KIP-511)
    garbage    good headers with a body of garbage, or with counts of 2^31-1, for every API key
    mutated    golden requests of Kafka's own classes with changed bytes (APIs that write at most to one topic)
    idle       10,000 connections that do nothing, half of them after a first request
    slow       frames sent byte by byte, and requests by the thousand from peers that don't read the responses

Meanwhile a prober sends ApiVersions and Metadata every 200 ms, alternating between an old and new connections. Fails (exit status
1) if a probe fails or takes longer than --latency-max-ms, a peer that must be disconnected isn't, the process dies, its resident
memory passes --rss-max-mib, or it logs more than --log-lines-max lines of one kind. Everything random comes from --seed.
"""

import argparse
import asyncio
import collections
import multiprocessing
import os
import random
import re
import resource
import socket
import struct
import sys
import time
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[2] / "broker" / "wire" / "tests" / "golden" / "messages.txt"
API_VERSIONS, METADATA = 18, 3
REQUEST_BYTES_MAX = 104_857_600  # socket.request.max.bytes
PROBE_INTERVAL_S = 0.2
DROPPED_WITHIN_S = 10
# Requests that change nothing in the broker, or write at most to a topic that doesn't exist: name, key, first flexible
# version.
MUTATED = [("Produce", 0, 9), ("Fetch", 1, 12), ("ListOffsets", 2, 6), ("ApiVersions", 18, 3), ("InitProducerId", 22, 2),
           ("OffsetForLeaderEpoch", 23, 4), ("DescribeConfigs", 32, 4), ("DescribeLogDirs", 35, 2), ("DescribeCluster", 60, 0),
           ("DescribeProducers", 61, 0), ("ListConfigResources", 74, 0), ("DescribeTopicPartitions", 75, 0)]


def frame(key, version, body, correlation=1, flexible=False):
    """A request with its length prefix; header v1, or v2 with empty tagged fields."""
    header = struct.pack(">hhih", key, version, correlation, 3) + b"bad" + (b"\0" if flexible else b"")
    return struct.pack(">i", len(header) + len(body)) + header + body


API_VERSIONS_V0 = frame(API_VERSIONS, 0, b"")
METADATA_V1 = frame(METADATA, 1, struct.pack(">i", 0), correlation=2)  # no topics


# The prober, which runs in its own process.

def read_exactly(peer, count):
    data = b""
    while len(data) < count:
        piece = peer.recv(count - len(data))
        if not piece:
            raise ConnectionError("closed by the broker")
        data += piece
    return data


def probe_once(peer):
    for request, correlation in ((API_VERSIONS_V0, 1), (METADATA_V1, 2)):
        peer.sendall(request)
        size, answered = struct.unpack(">ii", read_exactly(peer, 8))
        body = read_exactly(peer, size - 4)
        if answered != correlation:
            raise ConnectionError(f"correlation id {answered} instead of {correlation}")
        if request is API_VERSIONS_V0 and body[:2] != b"\0\0":
            raise ConnectionError(f"ApiVersions answers {body[:2].hex()}")


def prober(address, timeout_s, samples):
    """Sends (time, seconds, error or None) for each probe until it is killed."""
    old, count = None, 0
    while True:
        begin = time.monotonic()
        error = None
        try:
            if old is None:
                old = socket.create_connection(address, timeout_s)
            if count % 3 == 0:
                with socket.create_connection(address, timeout_s) as new:
                    probe_once(new)
            else:
                probe_once(old)
        except OSError as e:
            error, old = repr(e), None
        count += 1
        samples.send((begin, time.monotonic() - begin, error))
        time.sleep(max(0, begin + PROBE_INTERVAL_S - time.monotonic()))


# Peers that misbehave.

class Attack:
    def __init__(self, args, address):
        self.args = args
        self.address = address
        self.random = random.Random(args.seed)
        self.problems = []

    async def connect(self, source=None):
        """(reader, writer); retries while the broker's backlog is full."""
        for attempt in range(5):
            try:
                local = (source, 0) if source else None
                return await asyncio.wait_for(asyncio.open_connection(*self.address, local_addr=local), 5)
            except (OSError, asyncio.TimeoutError):
                await asyncio.sleep(0.2 * (attempt + 1))
        self.problems.append("no connection in five tries")
        raise ConnectionError

    async def send(self, data, then="close", wait_s=0.0):
        """Sends and closes or resets, after reading for wait_s; returns the bytes received, and whether the broker closed."""
        try:
            reader, writer = await self.connect()
        except ConnectionError:
            return b"", False
        received, closed = b"", False
        try:
            writer.write(data)
            await writer.drain()
            until = time.monotonic() + wait_s
            while not closed and time.monotonic() < until:
                piece = await asyncio.wait_for(reader.read(65536), until - time.monotonic())
                received, closed = received + piece, not piece
        except asyncio.TimeoutError:
            pass
        except OSError:
            closed = True
        if then == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        return received, closed

    async def many(self, jobs, at_once=50):
        gate = asyncio.Semaphore(at_once)

        async def one(job):
            async with gate:
                return await job
        return await asyncio.gather(*(one(job) for job in jobs))

    def ending(self):
        return self.random.choice(("close", "reset"))

    async def must_close(self, what, data):
        received, closed = await self.send(data, wait_s=DROPPED_WITHIN_S)
        if not closed:
            self.problems.append(f"{what}: not dropped within {DROPPED_WITHIN_S} s")
        elif received:
            self.problems.append(f"{what}: answered with {received[:40].hex()}")

    async def run_random(self):
        await self.many(self.send(self.random.randbytes(self.random.randint(1, 4096)), self.ending(), 0.05)
                        for _ in range(2000))

    async def run_truncated(self):
        frames = [API_VERSIONS_V0, METADATA_V1, frame(1, 12, bytes(40), flexible=True), frame(0, 9, bytes(60), flexible=True)]
        await self.many(self.send(whole[:cut], self.ending()) for whole in frames for cut in range(len(whole))
                        for _ in range(5))

    async def run_lengths(self):
        wrong = [2**31 - 1, -1, -(2**31), 0, 1, 7, REQUEST_BYTES_MAX + 1]
        await self.many(self.must_close(f"length {n}", struct.pack(">i", n) + bytes(64)) for n in wrong for _ in range(5))
        begun = struct.pack(">i", REQUEST_BYTES_MAX) + API_VERSIONS_V0[4:] + bytes(1000)
        await self.many((self.send(begun, wait_s=3) for _ in range(self.args.huge_frames)), at_once=self.args.huge_frames or 1)

    async def run_unknown(self):
        wrong = [(key, 0) for key in (-1, 99, 500, 32767, -32768)]
        wrong += [(key, version) for key in (0, 1, 2, METADATA, 19, 22) for version in (-1, 99, 32767)]
        await self.many(self.must_close(f"API {key} version {version}", frame(key, version, bytes(8))) for key, version in wrong)
        for version in (99, 32767):
            received, _ = await self.send(frame(API_VERSIONS, version, bytes(4), flexible=True), wait_s=1)
            # length, correlation id, then ApiVersions v0: error code, count, (key, min, max)...
            entries = list(struct.iter_unpack(">hhh", received[14:])) if len(received) % 6 == 2 else []
            if received[8:10] != b"\0\x23" or API_VERSIONS not in (key for key, _, _ in entries):
                self.problems.append(f"ApiVersions version {version}: {received[:60].hex()}")

    async def run_garbage(self):
        def bodies():
            yield self.random.randbytes(self.random.randint(0, 300))
            yield b"\x7f\xff\xff\xff" * 8
            yield b"\xff\xff\xff\xff\x07" * 8  # as a varint
            yield b"\x80" * 64
        await self.many(self.send(frame(key, version, body, flexible=flexible), self.ending(), 0.05)
                        for key in range(93) for version in (0, 1, 3, 7, 9, 12) for flexible in (False, True)
                        for body in bodies() if key not in (19, 20, 37, 64))

    async def run_mutated(self):
        golden = collections.defaultdict(list)
        for line in GOLDEN.read_text().splitlines():
            name, version, body = line.split()
            golden[name].append((int(version), b"" if body == "-" else bytes.fromhex(body)))
        jobs = []
        for name, key, flexible_from in MUTATED:
            for version, body in golden[name + "Request"]:
                for _ in range(30):
                    flexible = version >= flexible_from
                    jobs.append(self.send(frame(key, version, self.mutation(body), flexible=flexible), self.ending(), 0.05))
        self.random.shuffle(jobs)
        await self.many(jobs)

    def mutation(self, body):
        data = bytearray(body)
        for _ in range(self.random.randint(1, 4)):
            if data:
                at = self.random.randrange(len(data))
                data[at] = self.random.choice((0, 0x7f, 0x80, 0xff, data[at] ^ (1 << self.random.randrange(8))))
        cut = self.random.randrange(len(data) + 1)
        return bytes(self.random.choice((data, data, data[:cut], data + self.random.randbytes(9))))

    async def run_idle(self):
        """Connects from several loopback addresses, so that one address keeps enough ports for other tests at the same time."""
        async def one(i):
            try:
                reader, writer = await self.connect(f"127.0.0.{2 + i % 4}")
                if i % 2:
                    writer.write(API_VERSIONS_V0)
                    await asyncio.wait_for(reader.readexactly(8), 20)
                return writer
            except (OSError, EOFError, asyncio.TimeoutError):
                return None
        writers = await self.many((one(i) for i in range(self.args.idle_connections)), at_once=100)
        opened = sum(w is not None for w in writers)
        if opened < self.args.idle_connections:
            self.problems.append(f"idle: {opened} of {self.args.idle_connections} connections served")
        await asyncio.sleep(self.args.hold_s)
        for writer in writers:
            if writer is not None:
                writer.close()

    async def run_slow(self):
        async def byte_by_byte():
            _, writer = await self.connect()
            for byte in API_VERSIONS_V0[:-1]:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(self.args.hold_s / len(API_VERSIONS_V0))
            writer.close()

        async def never_reading():
            reader, writer = await self.connect()
            reader._transport.pause_reading()
            try:
                await asyncio.wait_for(self.flood(writer), self.args.hold_s)
            except asyncio.TimeoutError:
                pass
            writer.transport.abort()

        peers = [byte_by_byte() for _ in range(500)] + [never_reading() for _ in range(50)]
        for result in await asyncio.gather(*peers, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, OSError):
                raise result

    @staticmethod
    async def flood(writer):
        for _ in range(2000):
            writer.write(API_VERSIONS_V0 * 100)
            await writer.drain()


PHASES = [name.removeprefix("run_") for name in vars(Attack) if name.startswith("run_")]


# Watching the broker.

def rss_mib(pid):
    """None if the process is gone."""
    try:
        match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except FileNotFoundError:
        return None
    return int(match[1]) / 1024 if match else None


async def watch_rss(pid, peak):
    while pid:
        peak[0] = max(peak[0], rss_mib(pid) or 0)
        await asyncio.sleep(0.1)


def log_kinds(path, start):
    """New lines since `start`, counted by their text without times, numbers and peers."""
    with open(path, "rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    kind = re.compile(r"\x1b\[[0-9;]*m|\d{4}-\d\d-\d\dT[\d:.]+Z?|\b[0-9a-f]{8,}\b|-?\d+")
    return collections.Counter(kind.sub("#", line).strip()[:160] for line in lines if line.strip())


def phase_line(name, samples, seconds, peak, problems):
    ms = sorted(s[1] * 1000 for s in samples) or [0]
    rss = f"{peak:8.0f}" if peak else "       -"
    print(f"{name:10} {seconds:6.1f} {len(ms):7} {ms[len(ms) // 2]:8.1f} {ms[-1]:8.1f} {rss}  {'; '.join(problems) or 'ok'}", flush=True)


async def run(args, address, samples):
    failures = 0
    attack = Attack(args, address)
    print("phase      seconds  probes   p50 ms   max ms  RSS MiB")
    for name in ["quiet"] + args.phases + ["quiet"]:
        begin, peak = time.monotonic(), [0.0]
        watcher = asyncio.create_task(watch_rss(args.pid, peak))
        attack.problems = []
        await (asyncio.sleep(2) if name == "quiet" else getattr(attack, "run_" + name)())
        await asyncio.sleep(2 * PROBE_INTERVAL_S)
        watcher.cancel()
        seen = []
        while samples.poll():
            seen.append(samples.recv())
        problems = [f"{text} ({count} times)" for text, count in collections.Counter(attack.problems).items()]
        problems += sorted({f"probe: {error}" for _, _, error in seen if error})
        slowest = max((s[1] for s in seen), default=time.monotonic() - begin) * 1000
        if slowest > args.latency_max_ms:
            problems.append(f"a probe took {slowest:.0f} ms, allowed are {args.latency_max_ms}")
        if not seen:
            problems.append("no probe was answered")
        if args.pid and rss_mib(args.pid) is None:
            problems.append("the process is gone")
        if args.rss_max_mib and peak[0] > args.rss_max_mib:
            problems.append(f"resident {peak[0]:.0f} MiB, allowed are {args.rss_max_mib}")
        phase_line(name, seen, time.monotonic() - begin, peak[0], problems)
        failures += len(problems)
    return failures


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    parser.add_argument("--pid", type=int, help="the broker's process, to be watched")
    parser.add_argument("--rss-max-mib", type=int)
    parser.add_argument("--log", type=Path, help="the broker's log, whose new lines are counted by kind")
    parser.add_argument("--log-lines-max", type=int, default=10, help="of one kind (default %(default)s)")
    parser.add_argument("--latency-max-ms", type=int, default=1000, help="of a probe (default %(default)s)")
    parser.add_argument("--phases", type=lambda s: s.split(","), default=PHASES, help="default: all")
    parser.add_argument("--idle-connections", type=int, default=10_000)
    parser.add_argument("--huge-frames", type=int, default=50, help="begun frames of 100 MiB (default %(default)s)")
    parser.add_argument("--hold-s", type=float, default=8, help="how long idle and slow peers stay (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if set(args.phases) - set(PHASES):
        parser.error(f"unknown phases; there are {PHASES}")
    host, port = args.bootstrap.rsplit(":", 1)
    # Refuses to attack a server on another machine.
    if not socket.gethostbyname(host).startswith("127."):
        parser.error("only for a broker on loopback")
    return args, (socket.gethostbyname(host), int(port))


def main():
    args, address = arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = args.idle_connections + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted, hard))
    log_start = os.path.getsize(args.log) if args.log else 0
    samples, child = multiprocessing.Pipe(duplex=False)
    probing = multiprocessing.Process(target=prober, args=(address, 10, child), daemon=True)
    probing.start()
    try:
        failures = asyncio.run(run(args, address, samples))
    finally:
        probing.kill()
    if args.log:
        for kind, count in log_kinds(args.log, log_start).most_common():
            loud = count > args.log_lines_max
            failures += loud
            print(f"log {count:6} {'TOO MANY ' if loud else ''}{kind}")
    print(f"{failures} failures" if failures else "served throughout")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
