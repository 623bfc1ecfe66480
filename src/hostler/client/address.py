"""Which gateway a program speaks to that names none: the one that the commands speak to."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hostler.kernel.sources import Sources, Text, read_settings, refuse
from hostler.kernel.table import CONFIG_VARIABLE

DEFAULT_FILE: Final = "hostler.toml"


def address() -> tuple[str, str | None]:
    """Return URL and credential by `HOSTLER_URL` and `HOSTLER_KEY`, else the settings file, else this machine's.

    Blocks: it reads the file. `SettingsError` with every problem of both.
    """
    environment = dict(os.environ)
    file, _ = settings_file(None, environment)
    settings = read_settings(Sources(file=file, environment=environment)).checked()
    return settings.url, settings.key


def settings_file(named: str | None, environment: Mapping[str, str]) -> tuple[Text | None, Path | None]:
    """Read the settings file: the one `named` by a flag or by `HOSTLER_CONFIG`, else the one in the working directory.

    `SettingsError` when it cannot be read; none at all is no problem unless it was named.
    """
    chosen = named or environment.get(CONFIG_VARIABLE)
    who = "--config" if named else CONFIG_VARIABLE
    path = Path(chosen or DEFAULT_FILE).absolute()
    try:
        return Text(name=chosen or DEFAULT_FILE, text=path.read_text(encoding="utf-8")), path
    except FileNotFoundError:
        if chosen is None:
            return None, None
        refuse((f"{who}: {chosen}: there is no such file",))
    except (OSError, UnicodeDecodeError) as error:
        refuse((f"{who}: {path}: cannot be read ({reason_of(error)})",))
    return None, None


def reason_of(error: OSError | UnicodeDecodeError) -> str:
    """Return why a file cannot be read."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else "not UTF-8"
