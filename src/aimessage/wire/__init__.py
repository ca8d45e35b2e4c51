"""What a client and a relay say to each other, sans-I/O: `frames` `codec` `limits` `bundles` and the machine `link`."""
