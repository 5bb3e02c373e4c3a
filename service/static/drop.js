// How photos get onto the page: dropped, pasted, chosen, or one of the examples.

/** onFiles(files) is called with what the visitor gives. */
export function takeFiles(onFiles) {
  const zone = document.querySelector("#drop");
  const input = document.querySelector("#files");
  const given = (files) => files.length > 0 && onFiles([...files]);

  document.querySelector("#choose").onclick = () => input.click();
  input.onchange = () => {
    given(input.files);
    input.value = ""; // so that the same files can be chosen again
  };
  document.onpaste = (event) => given(event.clipboardData.files);

  let inside = 0; // enter and leave come for every element on the way
  const over = (change) => (zone.dataset.over = (inside = Math.max(0, inside + change)) > 0);
  document.ondragenter = () => over(1);
  document.ondragleave = () => over(-1);
  document.ondragover = (event) => event.preventDefault();
  document.ondrop = (event) => {
    event.preventDefault();
    over(-inside);
    given(event.dataTransfer.files);
  };

  for (const button of document.querySelectorAll("[data-example]")) {
    button.onclick = async () => given([await example(button.dataset.example)]);
  }
}

async function example(address) {
  const body = await (await fetch(address)).blob();
  return new File([body], address.split("/").at(-1), { type: body.type });
}
