// Light, dark, or as the system is: kept by the browser.
import {html, useEffect, useState} from "./vendor/htm-preact.js";

const THEMES = {auto: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"]};

function kept() {
  try {
    return THEMES[localStorage.theme] ? localStorage.theme : "auto";
  } catch { // a browser that keeps nothing
    return "auto";
  }
}

function use(theme) {
  document.documentElement.dataset.theme = theme;
}

use(kept());

export function ThemeButton() {
  const [theme, setTheme] = useState(kept), names = Object.keys(THEMES), next = names[(names.indexOf(theme) + 1) % names.length];
  useEffect(() => {
    use(theme);
    try { localStorage.theme = theme; } catch { /* it holds until the page is left */ }
  }, [theme]);
  return html`<button type="button" class="plain" id="theme" onClick=${() => setTheme(next)}
    aria-label=${`Appearance: ${THEMES[theme][1]}; change to ${THEMES[next][1]}`}
    title=${`Appearance: ${THEMES[theme][1]}`}>${THEMES[theme][0]}</button>`;
}
