"""One folder per deployable function; none imports another."""

import gc

# Imports allocate much and free little: collections after every 700 allocations find nothing and take a tenth of
# a cold start. Requests gain a little too.
gc.set_threshold(20_000, 20, 20)
