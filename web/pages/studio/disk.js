// The common part of this page's stores: IndexedDB, by promises.

/** Silence of a disk after which the page goes on without it, in milliseconds. */
const DISK_TIMEOUT = 4000;

/** All keys that begin with this name. */
export const all = (name) => IDBKeyRange.bound([name], [name, []]);

export function done(request) {
    return new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
    });
}

export function ended(transaction) {
    return new Promise((resolve, reject) => {
        transaction.oncomplete = () => resolve();
        transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("the disk refused it"));
    });
}

/** A database with these stores. Locks say whose a key is: where browsers have none, nothing is kept. */
export function openDatabase(name, stores) {
    if (!navigator.locks) {
        return Promise.reject(new Error("this page came without TLS, and browsers keep nothing safely for such pages"));
    }
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => stores.forEach((store) => request.result.createObjectStore(store));
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error("the disk does not answer")), DISK_TIMEOUT));
    return Promise.race([done(request), late]);
}

/** Why nothing is kept, as people read it. */
export const reason = (error) => (error.name === "QuotaExceededError" ? "its storage is full" : error.message || error.name);
