"""How fast does the search page answer, alone and to fifty clients at once?

An index of synthetic vectors with the shape of a real model's, and the real offline model for the
queries; the server is the real one, in a process of its own. One client measures single requests
and takes off what the server says that the model took; wrk (apt-get install wrk) is the load.

    python benchmarks/web.py --rows 100000
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote_plus

import numpy as np
from search import make_data

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.load import load_encoder
from retrieval_pipeline.images.pictures import encoded
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from synthetic.tables import content, write_manifest, write_part

CLIENTS = 50
SECONDS = 10
SINGLE = 200  # Requests of the single client.
PICTURES = 500  # Thumbnails that are in the cache.

# Each connection asks the next of the paths; the number of the thread keeps them apart.
SCRIPT = """
local paths = {}
for line in io.lines("%s") do paths[#paths + 1] = line end
local at = 0
request = function()
  at = at %% #paths + 1
  return wrk.format("GET", paths[at])
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "errors": %%d}\\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def make_library(root, rows):
    """Write settings, tables, a build and some thumbnails."""
    (root / "photos").mkdir()
    (root / "retrieval.toml").write_text(
        'home = "home"\nmodel = "offline"\ndevice = "cpu"\n'
        '[[sources]]\nname = "photos"\npath = "photos"\n'
    )
    store = Store(root / "home")
    encoder = load_encoder("offline", device="cpu")
    make_data(root, rows, encoder.dim)
    names = [f"n{number:07d}" for number in range(rows)]
    write_manifest(store, "photos", {f"{n[:4]}/{n}.jpg": n for n in names})
    write_part(store, encoder.space, "photos", names, np.load(root / "vectors.npy"))
    build_index(store, encoder.space, ["photos"], encode_texts=encoder.encode_texts)
    noise = np.random.default_rng(1).integers(0, 255, (20, 30, 3), np.uint8)
    picture = encoded(np.kron(noise, np.ones((16, 16, 1), np.uint8)))
    for name in names[:PICTURES]:
        file = store.thumbnail(content(name), "small")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture)
    return [content(name) for name in names[:PICTURES]]


def processor_ms(pid):
    """Return the processor time that a process has taken, in milliseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def single(address, paths):
    """Return milliseconds of each request, and those without the model's own time."""
    connection = http.client.HTTPConnection(address)
    whole, rest = [], []
    for path in paths:
        started = time.perf_counter()
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        taken = 1000 * (time.perf_counter() - started)
        assert response.status == 200, body
        whole.append(taken)
        rest.append(taken - json.loads(body)["timings_ms"].get("encode", 0.0))
    return whole, rest


def load(root, address, paths):
    """Return what wrk measured with many clients."""
    (root / "paths").write_text("\n".join(paths))
    (root / "load.lua").write_text(SCRIPT % (root / "paths"))
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS}s", "--timeout", "20s"]
    ended = subprocess.run(
        [*command, "-s", str(root / "load.lua"), f"http://{address}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ended.stdout.strip().splitlines()[-1])


def in_process(root, queries):
    """Return milliseconds of each search without a server, and without the model's own time."""
    settings = Settings.model_validate(
        {"home": root / "home", "sources": [{"name": "photos", "path": root / "photos"}]}
    )
    searcher = Searcher.open(settings)
    searcher.warm_up()
    rest = []
    for query in queries:
        started = time.perf_counter()
        answer = searcher.answer(Query(text=query), k=60)
        rest.append(1000 * (time.perf_counter() - started) - answer.timings_ms["encode"])
    return rest


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        contents = make_library(root, rows)
        known = words()
        pairs = zip(known[:SINGLE], reversed(known), strict=False)
        queries = [f"a {one} and a {other}" for one, other in pairs]
        asked = [f"/api/search?text={quote_plus(query)}" for query in queries]
        fresh_ones = [f"{path}+{number}" for number in range(50) for path in asked]
        direct = in_process(root, queries)
        server = subprocess.Popen(
            [sys.executable, "-m", "retrieval_pipeline", "serve", "--port", "0"],
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            address = server.stderr.readline().split()[0].split("/")[2]
            single(address, ["/api/search?text=warm"])
            fresh, beyond = single(address, asked)
            before = processor_ms(server.pid)
            again, _ = single(address, asked)
            spent = (processor_ms(server.pid) - before) / len(asked)
            print(f"{rows:,} pictures; milliseconds\n")
            print("| one client, 60 hits | p50 | p99 |")
            print("|---|--:|--:|")
            for name, values in (
                ("search in this process, beyond the model", direct),
                ("request, beyond the model", beyond),
                ("request, whole", fresh),
                ("request, query asked before", again),
            ):
                quantiles = statistics.quantiles(values, n=100)
                print(f"| {name} | {statistics.median(values):.1f} | {quantiles[98]:.1f} |")
            print(f"\nprocessor time of a query asked before: {spent:.1f} ms a request")
            print(f"\n| {CLIENTS} clients for {SECONDS} s | requests/s | p50 | p99 | errors |")
            print("|---|--:|--:|--:|--:|")
            cards = [path.replace("api/search", "fragments/cards") for path in asked]
            thumbnails = [f"/api/pictures/{each}/thumbnail" for each in contents]
            for name, paths in (
                ("search, new queries", fresh_ones),
                ("search, queries asked before", asked),
                ("cards, as HTML", cards),
                ("filtered search", [f"{path}&path=n00*" for path in asked]),
                ("newest pictures", ["/api/search?offset=600"]),
                ("thumbnails", thumbnails),
            ):
                found = load(root, address, paths)
                rate = found["requests"] / found["seconds"]
                print(
                    f"| {name} | {rate:,.0f} | {found['p50']:.0f} | {found['p99']:.0f} "
                    f"| {found['errors']} |",
                    flush=True,
                )
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
