"""Who may speak to the server, and what a browser may do with what it gets: around every request and response."""

import hmac
import ipaddress
import re
import secrets
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

# What everything but the pages of photos may do: nothing from anywhere else, and nobody frames it.
POLICY = (
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
  "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store",
}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
  """An ASGI application around another: checks Host, Origin and token, and adds the headers of `POLICY`.

  Host keeps a foreign name that is made to point here (DNS rebinding) from reading anything, Origin keeps other sites'
  pages from ordering anything.
  """

  def __init__(self, app, *, names: Collection[str] = (), token: str | None = None, any_address: bool = False):
    """Takes the application and who may reach it.

    Args:
      app: to be guarded.
      names: host names by which it is reached, beside those of loopback.
      token: everyone must know it; None lets all in.
      any_address: it is reached by any numeric address.
    """
    self._app, self._token, self._any_address = app, token, any_address
    self._names = _LOOPBACK | {name.lower() for name in names}
    self._cookie = f"gid_{secrets.token_hex(4)}"  # another server on this host has another one

  async def __call__(self, scope, receive, send):
    """Answers a request, or has it answered."""
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return

    async def send_guarded(message):
      if message["type"] == "http.response.start":
        given = {name.decode("latin-1").lower() for name, _ in message["headers"]}
        added = {"content-security-policy": POLICY} | _HEADERS
        more = [(key.encode(), value.encode()) for key, value in added.items() if key not in given]
        message = message | {"headers": [*message["headers"], *more]}
      await send(message)

    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
    refusal = self._check_origin(scope, headers)
    if refusal is not None:
      await _answer(send_guarded, 403, refusal)
    elif self._token is None or self._has_token(headers):
      await self._app(scope, receive, send_guarded)
    elif scope["path"] == "/" and self._is_token(_read_query(scope, "token")):
      # Into a cookie and out of the address. Lax, for who follows the address from a message.
      cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Lax"
      await _answer(send_guarded, 303, "", ("location", "/"), ("set-cookie", cookie))
    else:
      await _answer(send_guarded, 403, "Open the address that `gid serve` printed; it ends in a token.")

  def _check_origin(self, scope, headers) -> str | None:
    host = headers.get("host", "").lower()
    if not self._is_known(host):
      return "This server is not reached by this name; start it with --name NAME to allow one."
    origin = headers.get("origin")
    if origin is None:
      return None if scope["method"] in ("GET", "HEAD") else "Requests that change something need an Origin."
    try:
      is_own = urlsplit(origin).netloc.lower() == host
    except ValueError:
      is_own = False
    return None if is_own else "Another site may not ask for this."

  def _is_known(self, host: str) -> bool:
    match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]/@]+)(:\d{1,5})?", host)
    if match is None:
      return False
    name = match[1]
    if name in self._names:
      return True
    if not self._any_address:
      return False
    try:
      ipaddress.ip_address(name.strip("[]"))
    except ValueError:
      return False
    return True

  def _has_token(self, headers) -> bool:
    try:
      cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
    except CookieError:
      return False
    return cookie is not None and self._is_token(cookie.value)

  def _is_token(self, given: str | None) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), (self._token or "").encode())


def _read_query(scope, name: str) -> str | None:
  return parse_qs(scope["query_string"].decode("latin-1")).get(name, [None])[0]


async def _answer(send, status: int, text: str, *headers: tuple[str, str]) -> None:
  head = [("content-type", "text/plain; charset=utf-8"), *headers]
  encoded = [(key.encode(), value.encode()) for key, value in head]
  await send({"type": "http.response.start", "status": status, "headers": encoded})
  await send({"type": "http.response.body", "body": text.encode()})
