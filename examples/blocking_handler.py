"""A handler that is a plain function: it runs in a worker thread, so it may block, and use pydicom as scripts do."""

import aiodicom

server = aiodicom.Server("ARCHIVE", port=11112)


@server.on_c_store
def describe(operation: aiodicom.BlockingOperation) -> int:
    """Look into the data set; without an image, refuse it."""
    dataset = operation.dataset()
    if "PixelData" not in dataset:
        return 0xA900  # Error: Data Set does not match SOP Class (PS3.4 §B.2.3)
    print(f"{dataset.Modality}: {dataset.Rows} × {dataset.Columns} pixels", flush=True)
    return 0x0000


if __name__ == "__main__":
    server.run()
