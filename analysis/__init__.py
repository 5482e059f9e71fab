"""From ledger to decision. Imports neither torch nor transformers."""
