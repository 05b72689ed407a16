"""What lets a reader in, kept apart from the uri: no manifest, shard, report or message has it.

A signed address is another one each day; without its signature it stays the same photograph's.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

URI = re.compile(r"([A-Za-z][\w+.-]*)://([^/?#]*)([^?]*)(\?[^#]*)?(.*)", re.DOTALL)
WEB_SCHEMES = ("http", "https")

# Names in a query that let in: any of these words in it, or all of it but for its - and _.
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
WORDS = {
    *("sig", "sign", "signature", "signed", "hmac", "jwt", "token", "sas", "hdnea", "hdnts"),
    *("auth", "authorization", "credential", "credentials", "secret", "session"),
    *("password", "passwd", "pass", "pwd"),
}
NAMES = {"apikey", "accesskey", "secretkey", "subscriptionkey", "authkey", "sharedkey"}
SERVICES = ("x-amz-", "x-goog-", "x-ms-", "x-oss-", "x-cos-", "q-")  # a cloud's own, all of them
LONG_KEY = re.compile(r"[\w+=-]{16,}")  # a value of `key` that is no photograph's name
# What belongs to a signature and changes with it, for AWS, Google, CloudFront, Alibaba and Azure.
COMPANIONS = {
    *("expires", "expiry", "exp", "policy", "keypairid", "awsaccesskeyid", "googleaccessid"),
    *("ossaccesskeyid", "accesskeyid", "xid", "sv", "ss", "srt", "sr", "sp", "se", "st", "spr"),
    *("sip", "si", "sdd", "skoid", "sktid", "skt", "ske", "sks", "skv"),
}


class Credentials:
    """Of each uri that had a signature the whole query; of each host the last login given."""

    def __init__(self) -> None:
        self.queries: dict[str, str] = {}
        self.logins: dict[str, str] = {}

    def learn(self, others: Credentials) -> None:
        """Take over what `others` holds."""
        self.queries |= others.queries
        self.logins |= others.logins


known = Credentials()  # to this process


def bare(uri: str) -> str:
    """`uri` without its login and signature, which this process remembers from now on.

    Of http(s) the whole login goes, elsewhere the password: a user's name there may say whose
    directory it is.
    """
    parts = URI.fullmatch(uri) if "@" in uri or "?" in uri else None
    if parts is None or parts[1].lower() == "file":
        return uri
    scheme, authority, path, query, fragment = parts.groups("")
    web = scheme.lower() in WEB_SCHEMES
    login, at, host = authority.rpartition("@")
    if at and (web or ":" in login):
        authority = host if web else f"{login.partition(':')[0]}@{host}"
        known.logins[f"{scheme.lower()}://{authority}"] = login
    kept = _unsigned(query) if web else query
    stripped = f"{scheme}://{authority}{path}{kept}{fragment}"
    if kept != query:
        known.queries[stripped] = query
    return stripped


def login_of(uri: str) -> str:
    """``user:password`` for the host of the bare `uri`; empty where none was given."""
    scheme, _, rest = uri.partition("://")
    return known.logins.get(f"{scheme.lower()}://{re.split('[/?#]', rest, maxsplit=1)[0]}", "")


def query_of(uri: str) -> str:
    """The query, with its ?, that the bare `uri` was signed by; empty where it was not."""
    return known.queries.get(uri, "")


def signed(uri: str) -> str:
    """The bare `uri` with the signature that it came with."""
    query = query_of(uri)
    return re.split("[?#]", uri, maxsplit=1)[0] + query if query else uri


def _unsigned(query: str) -> str:
    """`query`, with its ?, less what lets in."""
    fields = query[1:].split("&")
    secret = [_lets_in(field) for field in fields]
    if not any(secret):
        return query
    kept = [
        field
        for field, one in zip(fields, secret, strict=True)
        if not one and _plain(field.partition("=")[0]) not in COMPANIONS
    ]
    return "?" + "&".join(kept) if kept else ""


def _lets_in(field: str) -> bool:
    name, _, value = field.partition("=")
    name = unquote_plus(name)
    if name.lower().startswith(SERVICES) or _plain(name) in NAMES:
        return True
    if name.lower() == "key":
        return bool(LONG_KEY.fullmatch(unquote_plus(value)))
    return any(word.lower() in WORDS for word in WORD.findall(name))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]", "", unquote_plus(name)).lower()
