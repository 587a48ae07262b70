"""Settings of the example. The database is the one of DATABASE_URL, else that of libpq's variables (PGHOST, PGDATABASE, ...)."""

import os
from typing import Any

from psycopg.conninfo import conninfo_to_dict


def database() -> dict[str, Any]:
    url = {name: value for name, value in conninfo_to_dict(os.environ.get("DATABASE_URL", "")).items() if value is not None}
    # What is empty here libpq takes from its variables by itself; only the name is asked for by Django.
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.pop("dbname", os.environ.get("PGDATABASE", "postgres")),
        "USER": url.pop("user", ""),
        "PASSWORD": url.pop("password", ""),
        "HOST": url.pop("host", ""),
        "PORT": url.pop("port", ""),
        "OPTIONS": url,
    }


DATABASES = {"default": database()}
INSTALLED_APPS = ["shop"]
ROOT_URLCONF = "shop.urls"
ALLOWED_HOSTS = ["localhost"]
SECRET_KEY = os.environ.get("SECRET_KEY", "only an example")
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
