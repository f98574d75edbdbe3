"""Families that are known not to keep the promise yet, each with the reason."""

OPEN: dict[str, str] = {
    "stores": "a manifest whose fields are of other types, or hold other numbers",
    "workdirs": "a config.json or a checkpoint whose fields are of other types",
    "towers": "a config.json whose fields are of other types",
}
