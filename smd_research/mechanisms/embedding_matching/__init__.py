"""Which row of one embedding table is which row of another: seeds, maps, matching."""
