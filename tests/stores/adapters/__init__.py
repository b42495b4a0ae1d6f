"""What the contract suite needs to know of a store: one module a store, with one class `Adapter` in it.

An adapter is made for the address of a running, empty server of one version. It looks at the server and tampers
with it through a plain client, never through the bootstrapper under test:

* `Adapter(url)`; `close()` releases what it holds.
* `open(url=None, **timing)`: a new bootstrapper of the adapter's blueprint (at least one change; better several),
  at its own address or another one; `timing` are fields of `Timing`. The suite closes it.
* `migrate_further(folder)`: what a newer version of the blueprint does with the store. Files go
  into `folder`.
* `snapshot()`: everything that a run may change, as a value that can be compared.
* `TAMPERINGS`: names of the kinds of drift; `tamper(kind)` produces one on a converged server, and the suite expects
  `verify` to tell it.
* `NATURES`: what each change is, as the documentation says, by its kind, or by its name if that
  says more.
* `lose_lock()`: from outside, what a lapse or a broken connection does to the lock that is held.
* `wrong_password()`: the address with credentials that the server refuses; None where the server asks for none.
* `refused_logins()`: how many the server has counted, or None where it does not count.
* `OTHER_SERVER`: the errors that are right when an HTTP server answers.
* `held_call(store)`: a context manager around a callable; called in another thread on an unapplied store, it does
  not return for a minute unless it is cancelled.
"""
