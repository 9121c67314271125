"""The command line and, later, the app: the only place that talks to a person."""

import os

# Idle OpenMP threads sleep instead of spinning. On a machine that is doing anything else, spinning at every
# barrier makes short parallel regions many times slower; on an idle one sleeping costs microseconds. Read
# once, when torch loads its OpenMP library, so it has to be said before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
