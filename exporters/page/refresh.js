// Fetches the page again and puts its main part in place of the old one. Without it the page refreshes as a whole.
(() => {
  "use strict";
  const every = 10000;
  let paused = false, busy = false;
  const button = document.getElementById("pause"), gone = document.getElementById("gone");
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Go on" : "Pause";
    button.setAttribute("aria-pressed", String(paused));
  });
  const keyOf = (e) => e && (e.id || e.getAttribute("href") || e.getAttribute("name"));
  async function refresh() {
    const old = document.querySelector("main");
    const typing = old.contains(document.activeElement) && /^(INPUT|SELECT)$/.test(document.activeElement.tagName);
    if (paused || busy || typing || document.hidden || !getSelection().isCollapsed) return;
    busy = true;
    try {
      const answer = await fetch(location.href, {cache: "no-store"});
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const open = [...old.querySelectorAll("details")].map((d) => d.open);
      const focus = keyOf(document.activeElement);
      const now = document.importNode(page.querySelector("main"), true);
      now.querySelectorAll("details").forEach((d, i) => { if (open[i]) d.open = true; });
      old.replaceWith(now);
      if (focus) [...now.querySelectorAll("a,summary,button")].find((e) => keyOf(e) === focus)?.focus({preventScroll: true});
      document.title = page.title;
      document.querySelector("link[rel=icon]").href = page.querySelector("link[rel=icon]").getAttribute("href");
      document.getElementById("refreshed").replaceWith(document.importNode(page.getElementById("refreshed"), true));
      gone.textContent = "";
    } catch {
      gone.textContent = "The daemon gives no answer: this is old.";
    } finally {
      busy = false;
    }
  }
  setInterval(refresh, every);
})();
