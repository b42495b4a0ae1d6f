"""Give the addresses of `is-db-bootstrap local up --output json` to the next steps of a GitHub job.

Passwords are masked in its log.
"""

import json
import os
import sys
from urllib.parse import urlsplit

addresses = json.load(sys.stdin)["environ"]
for url in addresses.values():
    if password := urlsplit(url).password:
        print(f"::add-mask::{password}")
with open(os.environ["GITHUB_ENV"], "a", encoding="utf-8") as file:
    file.writelines(f"{name}={url}\n" for name, url in addresses.items())
