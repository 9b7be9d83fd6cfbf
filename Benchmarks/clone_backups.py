"""clone_backups.py ENDPOINT BUCKET PREFIX SIGNING_KEY COUNT: makes each database's one backup in an S3 store into many, an hour apart and older,
signed with the daemon's own key: thousands of real backups would take hours. Their files are copies; their contents still name the original,
so that only that one can be restored."""
import base64
import concurrent.futures
import datetime
import json
import sys

import boto3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

endpoint, bucket, prefix, key_file, count = sys.argv[1:]
secret = base64.b64decode(open(key_file).read().split("\n")[1])
number, key = secret[32:40], Ed25519PrivateKey.from_private_bytes(secret[40:72])
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="bench",
                  aws_secret_access_key="bench-secret")
stamp, date = "%Y%m%dT%H%M%SZ", "%Y-%m-%dT%H:%M:%SZ"


def clone(folder, manifest, names, hours):
    """folder: database/type/stamp, below the prefix."""
    database, kind, old = folder.split("/")
    time = datetime.datetime.strptime(old, stamp) - datetime.timedelta(hours=hours)
    copy = dict(manifest, id=f"{manifest['id'].rsplit('/', 1)[0]}/{time.strftime(stamp)}",
                started=time.strftime(date), finished=time.strftime(date))
    copy.pop("due", None)
    place = f"{prefix}/{database}/{kind}/{time.strftime(stamp)}"
    for name in names:
        s3.copy_object(Bucket=bucket, Key=f"{place}/{name}", CopySource=f"{bucket}/{prefix}/{folder}/{name}")
    text = json.dumps(copy, indent=2, sort_keys=True).encode() + b"\n"
    signature = base64.b64encode(b"Ed" + number + key.sign(text)).decode()
    s3.put_object(Bucket=bucket, Key=f"{place}/manifest.json.sig", Body=f"untrusted comment: benchmark\n{signature}\n".encode())
    s3.put_object(Bucket=bucket, Key=f"{place}/manifest.json", Body=text)


folders = {}
for entry in s3.list_objects_v2(Bucket=bucket, Prefix=prefix + "/")["Contents"]:
    folder, name = entry["Key"][len(prefix) + 1:].rsplit("/", 1)
    folders.setdefault(folder, []).append(name)
work = []
for folder, names in folders.items():
    manifest = json.load(s3.get_object(Bucket=bucket, Key=f"{prefix}/{folder}/manifest.json")["Body"])
    files = [name for name in names if not name.startswith("manifest.json")]
    share = -(-(int(count) - len(folders)) // len(folders))
    work += [(folder, manifest, files, hours) for hours in range(1, share + 1)]
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for done in [pool.submit(clone, *one) for one in work[:int(count) - len(folders)]]:
        done.result()
