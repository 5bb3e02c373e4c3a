// A worker: makes a large photo small without freezing the page.

onmessage = async ({ data: { id, file, side } }) => {
  try {
    const bitmap = await shrunk(file, side);
    postMessage({ id, bitmap }, [bitmap]);
  } catch {
    postMessage({ id, bitmap: null }); // a broken file, or a format that the browser cannot show
  }
};

async function shrunk(file, side) {
  const whole = await createImageBitmap(file); // turned as its EXIF says
  const scale = Math.min(1, side / Math.max(whole.width, whole.height));
  const small = await createImageBitmap(whole, {
    resizeWidth: Math.max(1, Math.round(whole.width * scale)),
    resizeHeight: Math.max(1, Math.round(whole.height * scale)),
    resizeQuality: "high",
  });
  whole.close();
  return small;
}
