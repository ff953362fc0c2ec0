"""The public face: a module a verb, each a function of that name, which `tmdeploy` exports.

A verb takes keyword arguments with the names and defaults of its command, paths as text or Path, and a `progress`; it
returns a result that `to_json()` writes as `--json` does. What it wants to tell beside that is a `TmdeployWarning`.
"""
