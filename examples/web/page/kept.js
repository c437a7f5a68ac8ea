// Stores a training in the browser's own storage: one record, which only one tab at a time may write.

const opened = () => new Promise((resolve, reject) => {
  const request = indexedDB.open('oaif', 1);
  request.onupgradeneeded = () => request.result.createObjectStore('kept');
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

async function within(mode, act) {
  const base = await opened();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = base.transaction('kept', mode);
      const request = act(transaction.objectStore('kept'));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    base.close();
  }
}

export const read = () => within('readonly', (store) => store.get('training'));
export const write = (record) => within('readwrite', (store) => store.put(record, 'training'));

/// Whether this tab may write the record, from now on until it is closed.
export const claim = () => new Promise((resolve) => {
  const hold = (lock) => {
    resolve(lock !== null);
    return lock && new Promise(() => {});
  };
  navigator.locks.request('oaif', { ifAvailable: true }, hold).catch(() => resolve(true));
});
