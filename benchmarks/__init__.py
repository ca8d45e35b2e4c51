"""What AI Message costs, as a ratio to what the machine under it costs in the same run."""
