"""uv, with the index, certificates and proxy that pip is set up for; uv alone reads its own only.

`python .ci/uv.py pip install ...`. Variables of uv that are set count before pip's settings.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

#: a setting of pip, uv's variable, what separates several values there
SETTINGS = (
    ("index-url", "UV_INDEX_URL", " "),
    ("extra-index-url", "UV_EXTRA_INDEX_URL", " "),
    ("find-links", "UV_FIND_LINKS", ","),
    ("no-index", "UV_NO_INDEX", " "),
    ("trusted-host", "UV_INSECURE_HOST", " "),
    ("cert", "SSL_CERT_FILE", " "),
    ("proxy", "ALL_PROXY", " "),
)

pip = [sys.executable, "-m", "pip", "config", "list"]
listed = subprocess.run(pip, check=True, stdout=subprocess.PIPE, text=True).stdout
found = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
for name, variable, separator in SETTINGS:
    for section in (":env:", "install", "global"):  # the first counts, as for pip
        if value := found.get(f"{section}.{name}"):
            os.environ.setdefault(variable, separator.join(ast.literal_eval(value).split()))
os.environ.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")  # of several, as pip takes them
uv = str(Path(sys.executable).with_name("uv"))
os.execv(uv, [uv, *sys.argv[1:]])
