"""Stands for ``python -m stlora_kernels.train``: notes its arguments, then does what the test has written down for it.

succeed: leaves the result. fail: says why on stderr. crash: is killed. hang: leaves a state, and waits to be
interrupted. deaf: waits, and does not hear. silent: ends well and leaves nothing.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

folder = Path(sys.argv[sys.argv.index("--output") + 1])
answers = Path(os.environ["FAKE_ANSWERS"])
answer = json.loads((answers / f"{folder.name}.json").read_text())
with (answers / "calls").open("a") as calls:
    calls.write(json.dumps({"name": folder.name, "arguments": sys.argv[1:], "env": dict(os.environ)}) + "\n")
how = answer["how"]
if how == "fail":
    print("of its beginning\nerror: the loss is nan\n", file=sys.stderr)
    sys.exit(1)
if how == "crash":
    print("so far so good", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
folder.mkdir(parents=True, exist_ok=True)
if how in ("hang", "deaf"):
    if how == "deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    (folder / "last.safetensors").touch()
    (answers / f"{folder.name}.pid").write_text(str(os.getpid()))
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (answers / f"{folder.name}.interrupted").touch()
        sys.exit(130)
if how != "silent":
    (folder / "metrics.json").write_text(json.dumps(answer["metrics"]))
