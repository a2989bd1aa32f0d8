// Requests to the search program.

export class Failed extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const AWAY = "The search program does not answer; is it still running?";

export function fields(values) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return new URLSearchParams(given).toString();
}

export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); });
  });
}

function checked(status, text) {
  let content = {};
  try {
    content = JSON.parse(text);
  } catch { /* what is said below will do */ }
  if (status < 200 || status > 299) throw new Failed(content.error || `The search failed (${status}).`, status);
  return content;
}

// The answer as an object; told(text) hears why it takes long. A program that is busy is asked again.
export async function ask(address, {method = "GET", signal, told} = {}) {
  for (;;) {
    let answer, text;
    try {
      answer = await fetch(address, {method, signal});
      text = await answer.text();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Failed(AWAY, 0);
    }
    if (answer.status !== 503) return checked(answer.status, text);
    told?.("Other searches are at work; this one comes after them…");
    await pause(1000, signal);
  }
}

// As ask(), for a search with an image's file, whose way to the program may take a while.
export function send(address, file, {signal, told}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = ({loaded, total}) => {
      if (loaded < total) told(`Sending the picture: ${Math.round(100 * loaded / total)} %`);
    };
    request.onload = () => {
      try {
        resolve(checked(request.status, request.responseText));
      } catch (error) {
        reject(error);
      }
    };
    request.onerror = () => reject(new Failed(AWAY, 0));
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  }).catch(async (error) => {
    if (error.status !== 503) throw error;
    told("Other searches are at work; this one comes after them…");
    await pause(1000, signal);
    return send(address, file, {signal, told});
  });
}
