"""The configuration of the lab's NetBox. The lab copies it into the installation."""

import os

ALLOWED_HOSTS = ["*"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["LAB_DATABASE"],
        "USER": "postgres",
        "PASSWORD": "",
        "HOST": "127.0.0.1",
        "PORT": os.environ["LAB_POSTGRES_PORT"],
    }
}
REDIS = {
    name: {"HOST": "127.0.0.1", "PORT": int(os.environ["LAB_REDIS_PORT"]), "DATABASE": number, "SSL": False}
    for number, name in enumerate(("tasks", "caching"))
}
SECRET_KEY = "lab-only-lab-only-lab-only-lab-only-lab-only-lab-only-0123456789"
API_TOKEN_PEPPERS = {1: "lab-only-pepper-lab-only-pepper-lab-only-pepper-lab-only-pepper-01"}
PLUGINS = ["netbox_proxbox"]
RELEASE_CHECK_URL = None
CENSUS_REPORTING_ENABLED = False
CHANGELOG_RETENTION = 0
JOB_RETENTION = 0
