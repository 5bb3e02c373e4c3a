// The dialog that asks for a key.

/** Give what the visitor types, or null when that is nothing; `detail` is what was wrong before. */
export function askKey(detail) {
  const dialog = document.querySelector("#key");
  const input = dialog.querySelector("input");
  dialog.querySelector(".detail").textContent = detail;
  dialog.querySelector("button[type=button]").onclick = () => dialog.close("");
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      if (/^[!-~]+$/.test(input.value.trim())) dialog.close("given");
      else dialog.querySelector(".detail").textContent = "A key has no spaces, accents or dots like “…”";
    };
    dialog.onclose = () => {
      resolve(dialog.returnValue === "given" ? input.value.trim() : null);
      input.value = "";
    };
  });
}
