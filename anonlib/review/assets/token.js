// Who this page is to the server: the key in its address is exchanged once for a token, which is sent with every request.
// The token is in the tab's own storage, which other origins (other ports too) cannot read, and is gone with the tab.

const NAME = "token";

const bearer = (token) => ({ Authorization: `Bearer ${token}` });

export async function enter() {
  const key = location.hash.slice(1);
  if (!key) return;
  history.replaceState(null, "", "/");
  const answer = await fetch("/session", { method: "POST", headers: bearer(key) });
  const content = await answer.json();
  if (answer.ok) sessionStorage.setItem(NAME, content.token);
  else if (!sessionStorage.getItem(NAME)) throw new Error(content.problem);
}

export const send = (path, options = {}) =>
  fetch(path, { ...options, headers: bearer(sessionStorage.getItem(NAME) || "") });
