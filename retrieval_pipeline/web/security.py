"""Who may talk to the server: hosts, origins, tokens, and the headers that every answer has.

- The `Host` of a request must be the server's own: a foreign name that resolves to this machine
  (DNS rebinding) is refused. On other than loopback addresses the token takes over that role.
- What changes something needs a token that only pages of this server can read, and must not come
  from another origin.
- Where other machines can connect, every request needs the access token: once in the address or
  in an `Authorization` header, from then on in a cookie.
"""

import base64
import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval_pipeline.web.problems import RequestError
from retrieval_pipeline.web.proxies import route_path

COOKIE = "retrieval"
CSRF_HEADER = "x-retrieval-token"
SAFE_METHODS = {"GET", "HEAD"}
METHODS = SAFE_METHODS | {"POST", "DELETE"}
# Characters of an access token: what a machine could not guess in years.
SHORTEST_TOKEN = 16
SECRET_BYTES = 32
# Paths that take a form, whose field `token` takes the place of the header.
FORMS = {"/vote", "/zip", "/albums"}

# `connect-src` lets the page talk to this server, `blob:` shows a picture before it is sent.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        token: What others than this machine must know; None on loopback addresses.
        secret: What a request that changes something must show to have read.
    """

    token: str | None = None
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(SECRET_BYTES), repr=False)

    @property
    def csrf_token(self) -> str:
        """What a request that changes something must carry.

        It is another text each time it is asked for, the secret under a random mask: answers are
        compressed, and the length of a compressed page must not tell the secret in it (BREACH).
        """
        mask = secrets.token_bytes(SECRET_BYTES)
        return base64.urlsafe_b64encode(mask + _xor(mask, self.secret)).decode()

    def check(self, csrf_token: str) -> None:
        """Refuse what is not a `csrf_token` of this server.

        Raises:
            RequestError: 403.
        """
        try:
            given = base64.urlsafe_b64decode(csrf_token.encode())
        except ValueError:
            given = b""
        mask, masked = given[:SECRET_BYTES], given[SECRET_BYTES:]
        known = len(masked) == SECRET_BYTES and hmac.compare_digest(_xor(mask, masked), self.secret)
        if not known:
            raise RequestError(
                HTTPStatus.FORBIDDEN,
                f"the header {CSRF_HEADER} must hold what GET /api/token gives",
            )

    @property
    def cookie(self) -> str:
        """What the cookie holds instead of the token: it opens this door only."""
        key = (self.token or "").encode()
        return hmac.new(key, b"retrieval cookie", hashlib.sha256).hexdigest()


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address that is called `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware that refuses what may not come in, and adds headers to what goes out."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope)
        if (cleaned := self._first_use(request)) is not None:
            await cleaned(scope, receive, send_with_headers)
            return
        try:
            self._check(request)
        except RequestError as error:
            # The application shows it, as a page or as problem details.
            scope["refused"] = error
        await self._app(scope, receive, send_with_headers)

    def _check(self, request: Request) -> None:
        """Refuse a request.

        Raises:
            RequestError: Says why.
        """
        if request.method not in METHODS:
            raise RequestError(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{request.method} is not used here",
                headers={"allow": ", ".join(sorted(METHODS))},
            )
        if self._access.token is not None:
            if not self._is_known(request.headers):
                raise RequestError(
                    HTTPStatus.UNAUTHORIZED,
                    "this server asks for its token",
                    headers={"www-authenticate": "Bearer"},
                )
        elif not is_loopback(_host(request.headers) or ""):
            raise RequestError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server answers to localhost only: open it by that name",
            )
        if request.method not in SAFE_METHODS:
            self._check_intent(request.headers, route_path(request.scope))

    def _check_intent(self, headers: Headers, path: str) -> None:
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != headers.get("host"):
            raise RequestError(HTTPStatus.FORBIDDEN, "the request comes from another site")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise RequestError(HTTPStatus.FORBIDDEN, "the request comes from another site")
        # A form without a script can send no header: the page that takes it checks the field.
        if path not in FORMS:
            self._access.check(headers.get(CSRF_HEADER, ""))

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return _same(value.strip(), self._access.token or "")
        return _same(_cookie(headers), self._access.cookie)

    def _first_use(self, request: Request) -> RedirectResponse | None:
        """Turn a right token in the address into a cookie, so that it does not stay there."""
        if self._access.token is None or request.method != "GET":
            return None
        pairs = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in pairs if name == "token"]
        if not given or not _same(given[0], self._access.token):
            return None
        rest = urlencode([(name, value) for name, value in pairs if name != "token"])
        # One slash: two would lead to another host.
        path = "/" + request.url.path.lstrip("/")
        response = RedirectResponse(path + (f"?{rest}" if rest else ""), HTTPStatus.SEE_OTHER)
        response.set_cookie(
            COOKIE,
            self._access.cookie,
            max_age=365 * 24 * 3600,
            httponly=True,
            samesite="lax",
            path=request.scope.get("root_path") or "/",
            secure=request.url.scheme == "https",
        )
        return response


def _cookie(headers: Headers) -> str:
    """Return the value of this server's cookie, "" if there is none.

    One pass over the header: `http.cookies` takes quadratic time for a hostile one, and this comes
    before anybody is known.
    """
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.partition("=")
        if name.strip() == COOKIE:
            return value.strip()
    return ""


def _netloc(url: str) -> str | None:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def _host(headers: Headers) -> str | None:
    """Return the name in the `Host` header, without the port."""
    try:
        return urlsplit("//" + headers.get("host", "")).hostname
    except ValueError:
        return None


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _same(given: str, expected: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())
