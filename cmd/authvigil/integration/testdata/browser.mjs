// Looks at the pages in chromium: node browser.mjs JOB.json. Prints "ok NAME" or "FAIL NAME: why" for each question, and
// "note …" for what was measured. Exit code 0 when every question was asked, whatever the answers.
import {readFileSync} from "node:fs";
import {createRequire} from "node:module";
import {chromium} from "playwright-core";

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({
  executablePath: job.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--font-render-hinting=none"],
});
const wide = {width: 1280, height: 900}, phone = {width: 390, height: 844};

async function ask(name, question) {
  try {
    const wrong = (await question()) ?? [];
    console.log(wrong.length ? `FAIL ${name}: ${wrong.join("; ").replace(/\s+/g, " ").slice(0, 1500)}` : `ok ${name}`);
  } catch (e) {
    console.log(`FAIL ${name}: ${String(e).replace(/\s+/g, " ").slice(0, 1500)}`);
  }
}

// open gives a page that remembers whatever went wrong on it.
async function open(url, options = {}) {
  const context = await browser.newContext({viewport: wide, ...options});
  context.setDefaultTimeout(120000); // of a machine that does other things too
  const page = await context.newPage();
  page.wrong = [];
  const origin = new URL(url).origin;
  page.on("console", (m) => { if (m.type() === "error" || m.type() === "warning") page.wrong.push(`console: ${m.text()}`); });
  page.on("pageerror", (e) => page.wrong.push(`script: ${e}`));
  page.on("dialog", (d) => { page.wrong.push(`dialog: ${d.message()}`); d.dismiss(); });
  page.on("request", (r) => { if (!r.url().startsWith(origin)) page.wrong.push(`asks ${r.url()}`); });
  page.on("response", (r) => { if (r.status() >= 400 && !r.url().endsWith("favicon.ico")) page.wrong.push(`${r.status()} ${r.url()}`); });
  page.done = () => context.close();
  await page.goto(url);
  return page;
}

async function violations(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run(document, {resultTypes: ["violations"]}));
  return found.violations.map((v) => `${v.id} (${v.nodes.length}): ${v.help}: ${v.nodes[0].html.slice(0, 200)} ${v.nodes[0].failureSummary}`);
}

const overflow = (page) => page.evaluate(() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const wide = [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > width + 1 && !e.closest(".scroll,pre"));
  return [`the page is ${document.documentElement.scrollWidth} wide, the window ${width}: ${wide.slice(0, 3).map((e) => e.outerHTML.slice(0, 120)).join(" | ")}`];
});

// Every page: no complaint of axe, nothing wider than the window, no error, in light and dark, on a desk and a phone.
for (const [site, url] of Object.entries(job.sites)) {
  for (const path of job.paths[site]) {
    const page = await open(url + path);
    for (const [look, colorScheme, viewport] of [["light", "light", wide], ["dark", "dark", wide], ["phone", "light", phone]]) {
      await ask(`${site}${path} ${look}`, async () => {
        await page.emulateMedia({colorScheme});
        await page.setViewportSize(viewport);
        return [...await violations(page), ...await overflow(page), ...page.wrong];
      });
    }
    await page.done();
  }
}

await ask("print", async () => {
  const page = await open(job.sites.failing + "/", {colorScheme: "dark"});
  await page.emulateMedia({media: "print", colorScheme: "dark"});
  const seen = await page.evaluate(() => ({
    back: getComputedStyle(document.body).backgroundColor,
    form: getComputedStyle(document.querySelector("form.filter")).display,
    button: getComputedStyle(document.querySelector("#pause")).display,
    folded: [...document.querySelectorAll("details:not([open]) > ul")].filter((e) => e.getBoundingClientRect().height === 0).length,
  }));
  const bytes = (await page.pdf()).length;
  await page.done();
  return [seen.back === "rgb(255, 255, 255)" ? "" : `paper is ${seen.back}`, seen.form === "none" ? "" : "the filter is printed", seen.button === "none" ? "" : "the button is printed",
    seen.folded === 0 ? "" : `${seen.folded} folded parts are not printed`, bytes > 10000 ? "" : `the PDF has ${bytes} bytes`].filter(Boolean);
});

await ask("keyboard", async () => {
  const page = await open(job.sites.failing + "/"), wrong = [];
  await page.keyboard.press("Tab");
  if (await page.evaluate(() => document.activeElement.className) !== "skip") wrong.push("the first stop is not the skip link");
  if (await page.evaluate(() => document.activeElement.getBoundingClientRect().left) < 0) wrong.push("the skip link stays hidden");
  await page.keyboard.press("Enter");
  if (await page.evaluate(() => document.activeElement.id) !== "content") wrong.push("the skip link does not lead to the content");
  await page.reload();
  const seen = new Set();
  for (let i = 0; i < 400; i++) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const e = document.activeElement, s = getComputedStyle(e);
      window.stops = window.stops || new Map();
      if (e === document.body) return null;
      if (!window.stops.has(e)) window.stops.set(e, window.stops.size);
      return {n: window.stops.get(e), html: e.outerHTML.slice(0, 80), visible: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2};
    });
    if (!at || seen.has(at.n)) break;
    seen.add(at.n);
    if (!at.visible) wrong.push(`no visible focus: ${at.html}`);
  }
  const all = await page.evaluate(() => [...document.querySelectorAll("a[href],button:not([hidden]),input:not([type=hidden]),select,summary,[tabindex='0']")].filter((e) => e.checkVisibility() && !window.stops.has(e)).map((e) => e.outerHTML.slice(0, 80)));
  if (all.length) wrong.push(`not reached: ${all.slice(0, 3).join(" ")}`);
  await page.done();
  return wrong;
});

await ask("without JavaScript", async () => {
  const page = await open(job.live + "/?q=p000", {javaScriptEnabled: false}), wrong = [];
  if (await page.locator("meta[http-equiv=refresh]").count() !== 1) wrong.push("the page does not refresh itself");
  if (await page.locator("#pause").isVisible()) wrong.push("a button that does nothing is shown");
  await page.getByLabel("Search").fill("p0001");
  await page.getByLabel("Search").press("Enter");
  await page.waitForURL(/q=p0001/);
  if (await page.locator("table.probes tbody tr").count() !== 1) wrong.push("the filter does not filter");
  await page.getByRole("link", {name: "p0001", exact: true}).first().click();
  await page.waitForURL(/probes\/p0001/);
  if (!(await page.locator("h1").innerText()).includes("p0001")) wrong.push("the page of the probe is not shown");
  await page.done();
  return [...wrong, ...page.wrong];
});

await ask("refresh, pause, and a daemon that is gone", async () => {
  const context = await browser.newContext({viewport: wide}), page = await context.newPage(), wrong = [];
  await page.clock.install();
  await page.goto(job.live + "/?q=p0001");
  const refreshed = page.locator("#refreshed");
  const stamp = async () => (await refreshed.innerText()).trim();
  const first = await stamp();
  await new Promise((r) => setTimeout(r, 1100));
  await page.clock.runFor(10500);
  await page.waitForFunction((was) => document.querySelector("#refreshed").innerText.trim() !== was, first, {timeout: 5000}).catch(() => wrong.push("the page does not refresh"));
  await page.getByRole("button", {name: "Pause"}).click();
  if (await page.locator("#pause").getAttribute("aria-pressed") !== "true") wrong.push("the button does not say that it is pressed");
  const second = await stamp();
  await new Promise((r) => setTimeout(r, 1100));
  await page.clock.runFor(10500);
  if (await stamp() !== second) wrong.push("the page refreshes while it is paused");
  await page.getByRole("button", {name: "Go on"}).click();
  await page.route("**/*", (r) => r.abort());
  await page.clock.runFor(10500);
  await page.waitForFunction(() => document.getElementById("gone").innerText.includes("this is old"), null, {timeout: 5000}).catch(() => wrong.push("a reader is not told that the daemon is gone"));
  await context.close();
  return wrong;
});

await ask("hostile text stays text", async () => {
  const wrong = [];
  for (const path of ["/", "/?state=failing", ...job.hostile.map((name) => "/probes/" + encodeURIComponent(name))]) {
    const page = await open(job.evil + path);
    const seen = await page.evaluate(() => ({
      pwned: window.pwned, scripts: document.scripts.length, images: [...document.images].filter((i) => !/\/(good|bad)\.svg$/.test(i.src)).length,
      handlers: [...document.querySelectorAll("*")].filter((e) => [...e.attributes].some((a) => a.name.startsWith("on") || a.name === "style")).length,
      frames: document.querySelectorAll("iframe,object,embed,base,form:not(.filter)").length, text: document.body.innerText,
    }));
    if (seen.pwned || seen.scripts > 1 || seen.images || seen.handlers || seen.frames) wrong.push(`${path}: ${JSON.stringify({...seen, text: ""})}`);
    if (path.startsWith("/probes/") && !seen.text.includes("<script>")) wrong.push(`${path}: what the server said is not shown as text`);
    if (/[\u202a-\u202e\u2066-\u2069\u0000-\u0008\u001b]/.test(seen.text)) wrong.push(`${path}: a character that commands`);
    wrong.push(...page.wrong);
    await page.done();
  }
  return wrong;
});

await ask("a thousand probes", async () => {
  const page = await open(job.live + "/"), wrong = [];
  const rows = await page.locator("table.probes tbody tr").count();
  if (rows < 1000) wrong.push(`${rows} rows are shown`);
  let best = {server: 1e9, all: 1e9};
  for (let i = 0; i < 9 && (i < 3 || best.server > 150); i++) {
    await page.reload({waitUntil: "domcontentloaded"});
    const t = await page.evaluate(() => { const n = performance.getEntriesByType("navigation")[0]; return {server: n.responseStart - n.requestStart, all: n.domContentLoadedEventEnd - n.requestStart}; });
    best = {server: Math.min(best.server, t.server), all: Math.min(best.all, t.all)};
  }
  console.log(`note a thousand probes: made by the server in ${best.server.toFixed(0)} ms, ready in the browser after ${best.all.toFixed(0)} ms, best of nine`);
  if (best.server > 200) wrong.push(`the server takes ${best.server} ms`);
  wrong.push(...page.wrong, ...await overflow(page));
  await page.done();
  return wrong;
});

for (const {name, url, width, height, dark, full} of job.pictures ?? []) {
  const page = await open(url, {viewport: {width, height}, colorScheme: dark ? "dark" : "light", deviceScaleFactor: width < 600 ? 2 : 1});
  await page.screenshot({path: name, fullPage: full});
  await page.done();
}
await browser.close();
