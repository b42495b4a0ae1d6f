"""Run the full Milvus 2.3.5 of PyPI in the foreground: `python milvus235.py PORT FOLDER
[SETTING=VALUE…]`.

A setting is a dotted name in its milvus.yaml.
"""

import signal
import sys

from milvus import MilvusServer, MilvusServerConfig

config = MilvusServerConfig(data_dir=sys.argv[2], proxy_port=int(sys.argv[1]))
for setting in sys.argv[3:]:
    config.set(*setting.split("=", 1))
server = MilvusServer(config, wait_for_started=False)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
try:
    server.start()
    server.server_proc.wait()
finally:
    server.stop()
