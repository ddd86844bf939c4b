"""One file per method; its yaml in configs/methods/ has the same stem."""
