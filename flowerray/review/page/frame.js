// What stands around every view: where one is, what isn't saved yet, what went wrong.
import { html, useEffect, useRef, useState } from "./vendor/htm/standalone.module.js";
import { useKeys } from "./keys.js";
import { Help, Key, many } from "./parts.js";

export function Frame({ session, title, aside, keys, grid, className = "", children }) {
  const [isHelping, setHelping] = useState(false);
  useKeys(keys ? { "?": () => setHelping(true) } : {});
  const { link, error } = session;
  const main = useRef();
  useEffect(() => {
    document.title = `${title ?? "review"} · ${session.pile.name}`;
    // Whoever reads by ear begins here, unless the view has put them elsewhere.
    if (document.activeElement === document.body) main.current.focus({ preventScroll: true });
  }, [title]);
  return html`<div class="frame ${className}">
    <header class="top">
      ${title
        ? html`<a class="home" href="#/" aria-label=${`${session.pile.name}: all ways to review`}>
              <span aria-hidden="true">‹</span> <bdi>${session.pile.name}</bdi>
            </a>
            <span class="where"><bdi>${title}</bdi></span>`
        : html`<span class="home">flowerray review</span>`}
      ${aside}
      <span class="space"></span>
      <span class="unsaved" role="status">${link.unsaved > 0 && (link.away || link.refused || link.unsaved > 2) && `${link.unsaved} not saved yet`}</span>
      ${grid && html`<a class="button" href=${grid}>Grid</a>`}
      ${keys && html`<button type="button" class="help" aria-label="Keys" onClick=${() => setHelping(true)}><${Key}>?<//><span>Keys</span></button>`}
    </header>
    <${Troubles} session=${session} link=${link} error=${error} />
    <main ref=${main} tabindex="-1">${children}</main>
    ${isHelping && html`<${Help} keys=${keys} onLeave=${() => setHelping(false)} />`}
  </div>`;
}

function Troubles({ session, link, error }) {
  const waiting = link.unsaved
    ? ` ${many(link.unsaved, "decision is", "decisions are")} kept in this browser and sent as soon as it does.`
    : "";
  return html`<div class="troubles" role="alert">
    ${link.away && html`<p>The server doesn't answer.${waiting}</p>`}
    ${link.refused && html`<p>
      <span>Not saved: ${link.refused.line}</span>
      <button type="button" onClick=${() => session.outbox.goOn({ without: false })}>Try again</button>
      ${link.refused.isFinal && html`<button type="button" onClick=${() => session.discard()}>Drop this decision</button>`}
    </p>`}
    ${error && html`<p>
      <span>${error}</span>
      <button type="button" onClick=${() => session.complain(null)}>Close</button>
    </p>`}
  </div>`;
}
