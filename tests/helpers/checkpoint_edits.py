"""How the tests of checkpoints change a folder."""

import json


def edit_config(folder, **changes):
    path = folder / "config.json"
    facts = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))
