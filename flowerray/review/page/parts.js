// Small things that several views show.
import { html, useLayoutEffect, useRef, useState } from "./vendor/htm/standalone.module.js";
import { useKeys } from "./keys.js";

export const NONE = "none";
export const spoken = (label) => (label === NONE ? "none of these" : label);
export const count = (number) => (number ?? 0).toLocaleString("en");
export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

// A share in percent, never rounded up to certainty.
export function percent(share) {
  if (share === null) return "";
  if (share > 0.99 && share < 1) return ">99%";
  return share > 0 && share < 0.01 ? "<1%" : `${Math.round(100 * share)}%`;
}

// Novelty is the distance from the training photographs; above 1 lie the farthest of them.
export function noveltyWords(novelty) {
  if (novelty === null || novelty <= 1) return null;
  return `${novelty > 1.5 ? "very " : ""}unlike what it was trained on`;
}

export function Key({ children }) {
  return html`<kbd aria-hidden="true">${children}</kbd>`;
}

// What is known of a card, in words and colour.
export function badgesOf(card) {
  const badges = [];
  if (card.decided)
    badges.push({ kind: "human", text: `${spoken(card.decided.label)} · ${card.decided.who}` });
  else if (card.accepted) badges.push({ kind: "accepted", text: "accepted" });
  else if (card.accepted === false) badges.push({ kind: "review", text: "to review" });
  if (!card.blind && card.novelty > 1) badges.push({ kind: "novel", text: "novel" });
  return badges;
}

export function Badges({ card }) {
  return html`<span class="badges">
    ${badgesOf(card).map(({ kind, text }) => html`<span class="badge ${kind}"><bdi>${text}</bdi></span>`)}
  </span>`;
}

// A dialog over the page, left by Escape.
export function Dialog({ label, className = "", keys = {}, onLeave, children }) {
  const dialog = useRef();
  useKeys(keys, { covers: true });
  useLayoutEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    const own = dialog.current;
    return () => {
      own.close(); // while it is open, nothing else can have the focus
      if (before?.isConnected) before.focus({ preventScroll: true });
    };
  }, []);
  return html`<dialog
    ref=${dialog}
    class=${className}
    aria-label=${label}
    onCancel=${(event) => {
      event.preventDefault();
      onLeave();
    }}
    onClick=${(event) => event.target === dialog.current && onLeave()}
  >
    ${children}
  </dialog>`;
}

export function Help({ keys, onLeave }) {
  return html`<${Dialog} label="Keys" keys=${{ "?": onLeave }} onLeave=${onLeave}>
    <h2>Keys</h2>
    <dl class="keys">
      ${keys.map(([names, does]) => html`<div>
        <dt>${names.split(" ").map((name) => html`<kbd>${name}</kbd> `)}</dt>
        <dd>${does}</dd>
      </div>`)}
    </dl>
    <button type="button" class="main-button" onClick=${onLeave}>Close</button>
  <//>`;
}

// Typing a name: the first of the list is taken by Enter. `mayBeNew` allows one that isn't known.
export function Typing({ names, mayBeNew, onPick, onLeave }) {
  const [text, setText] = useState("");
  const [active, setActive] = useState(0);
  const field = useRef();
  useLayoutEffect(() => field.current.focus(), []); // at once: the next key is its first letter

  const typed = text.trim();
  const low = typed.toLowerCase();
  const rank = (name) => [name !== low, !name.startsWith(low), !name.includes(low)].indexOf(false);
  const found = names
    .map((name) => ({ name, place: rank(name.toLowerCase()) }))
    .filter(({ place }) => place >= 0)
    .sort((a, b) => a.place - b.place)
    .slice(0, 8)
    .map(({ name }) => ({ name, isNew: false }));
  const isKnown = names.some((name) => name.toLowerCase() === low);
  if (mayBeNew && typed && !isKnown && low !== NONE) found.unshift({ name: typed, isNew: true });
  const at = Math.min(active, found.length - 1);

  function pressed(event) {
    const moves = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key === "Escape") onLeave();
    else if (event.key === "Enter" && found[at] && typed) onPick(found[at].name);
    else if (moves[event.key] && found.length)
      setActive((at + moves[event.key] + found.length) % found.length);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
  return html`<div class="typing" onFocusOut=${(event) => event.currentTarget.contains(event.relatedTarget) || onLeave()}>
    <input
      ref=${field}
      type="text"
      role="combobox"
      autocomplete="off"
      autocapitalize="none"
      spellcheck="false"
      maxlength="100"
      aria-label=${mayBeNew ? "Name of the class" : "Find a class"}
      placeholder=${mayBeNew ? "Name of the class" : "Find a class"}
      aria-expanded=${String(found.length > 0)}
      aria-controls="typing-list"
      aria-activedescendant=${found.length ? `typing-${at}` : undefined}
      value=${text}
      onInput=${(event) => {
        setText(event.currentTarget.value);
        setActive(0);
      }}
      onKeyDown=${pressed}
    />
    <ul id="typing-list" role="listbox" aria-label="Classes" hidden=${!found.length}>
      ${found.map(({ name, isNew }, i) => html`<li
        key=${name}
        id=${`typing-${i}`}
        role="option"
        aria-selected=${String(i === at)}
        onPointerDown=${(event) => event.preventDefault()}
        onClick=${() => onPick(name)}
      >
        ${isNew && html`<span class="soft">new class </span>`}<bdi>${name}</bdi>
      </li>`)}
    </ul>
    ${!found.length && html`<p class="note" role="status">
      ${names.length ? "No class has this in its name. Escape, then n names a new one." : "Type a name."}
    </p>`}
  </div>`;
}

// A command to go on with, and a button that copies it.
export function Command({ text, session }) {
  const [copied, setCopied] = useState(false);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
      setTimeout(() => setCopied(false), 2000);
    } catch {
      session.complain("The browser doesn't let the page copy: select the line and copy it.");
    }
  }
  return html`<div class="command">
    <code>${text}</code>
    <button type="button" onClick=${copy} aria-label=${`Copy ${text}`}>${copied ? "Copied" : "Copy"}</button>
  </div>`;
}
