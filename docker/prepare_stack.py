#!/opt/pvar/bin/python
"""Make what the stack's servers expect to find: MLflow's database, and the bucket of the store.

Started once by compose.yaml before the servers; what is there already is left as it is.
"""

import os
from contextlib import closing

import boto3
import psycopg2
from psycopg2.errors import DuplicateDatabase
from psycopg2.sql import SQL, Identifier


def make_database(address: str, name: str) -> None:
    """Make a database; `address` is that of another one on the same server."""
    with closing(psycopg2.connect(address)) as connection:
        connection.autocommit = True  # CREATE DATABASE refuses to run in a transaction
        with connection.cursor() as cursor:
            try:
                cursor.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
            except DuplicateDatabase:
                return


def make_bucket(name: str) -> None:
    """Make a bucket; address and keys come from AWS_*."""
    s3 = boto3.client("s3")
    if name not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=name)


if __name__ == "__main__":
    make_database(os.environ["POSTGRES_ADDRESS"], "mlflow")
    make_bucket(os.environ["BUCKET"])
