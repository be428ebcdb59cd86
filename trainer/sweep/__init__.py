"""Sweeps: many jobs of one command line, each in a process of its own, with a ledger that survives them.

`control` runs a whole sweep. `multirun` asks Hydra for the jobs and has its launcher call `task.run_job` for each; that
leases devices (`leases`), starts a process (`processes`, `job_process`, `warm`) and records how it ended. `watch` shows
the sweep meanwhile, `pruning` stops jobs early, `hparams` writes TensorBoard's overview. `__main__` has the commands.
"""
