// A bar with a word about waiting, and a button that cancels.

/** Give show({done, total, wait}); hidden while there is nothing to wait for. */
export function progressOf(root, onCancel) {
  const bar = root.querySelector("progress");
  const word = root.querySelector(".wait");
  root.querySelector("button").onclick = onCancel;
  return ({ done, total, wait = 0 }) => {
    root.hidden = total === 0;
    bar.max = Math.max(1, total);
    bar.value = done;
    word.textContent = wait > 0 ? `The service is busy; next try in ${wait} s` : `${done} of ${total}`;
  };
}
