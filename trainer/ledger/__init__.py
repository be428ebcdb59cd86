"""The jobs of a sweep as files: which job is which, its state, its results. No framework.

`record` has the identity of a job and its record, `ledger` the records of a sweep, `leaderboard` their ranking.
"""
