// This browser's store of presented lectures: the key, slides, and entries before they are sent. So a killed tab goes on with the
// next entry. A lock shows which tab presents: it ends with the tab, however that ends.

import { all, done, ended, openDatabase, reason } from "./disk.js";

const DATABASE = "lcroute presents";
/** Apart from it: entries must be kept, and a key goes where they are not; without a picture a lecture only lacks a picture. */
const FILES = "lcroute pictures";
const LOCK = "lcroute presents ";
/** The tab before a reload may have a lecture still: it is asked for again so often, after so many milliseconds. */
const TRIES = 5;
const AGAIN = 300;

export class PresentStore {
    /** Without a store, `why` has the reason. */
    static async open() {
        const store = new PresentStore();
        try {
            store.database = await openDatabase(DATABASE, ["lectures", "records"]);
            await store.lectures();
            store.images = await openDatabase(FILES, ["files"]).catch(() => null);
        } catch (error) {
            store.lose(error);
        }
        return store;
    }

    why = null;
    database = null;
    images = null;

    /** `error`: nothing is kept from now on. */
    lose(error) {
        this.database?.close();
        this.database = null;
        this.why = reason(error);
    }

    /** All that are kept, the last one first. */
    async lectures() {
        const found = this.database ? await done(this.database.transaction("lectures").objectStore("lectures").getAll()) : [];
        return found.sort((a, b) => b.changed - a.changed);
    }

    /** Takes a lecture for this tab alone, as long as it is there. */
    async take(name) {
        for (let tries = 0; this.database && tries < TRIES; tries += 1) {
            if (await this.claim(name)) {
                return;
            }
            await new Promise((resolve) => setTimeout(resolve, AGAIN));
        }
        if (this.database) {
            throw new Error("Another tab of this browser has this lecture open. One key is for one place at a time.");
        }
    }

    claim(name) {
        return new Promise((resolve, reject) => {
            const held = (lock) => {
                resolve(lock !== null);
                return lock && new Promise((release) => (this.release = release));
            };
            navigator.locks.request(LOCK + name, { ifAvailable: true }, held).catch(reject);
        });
    }

    /** Another tab may have it. */
    giveBack() {
        this.release?.();
        this.release = null;
    }

    /** A lecture by this name, if it is kept. */
    async lecture(name) {
        return this.database ? done(this.database.transaction("lectures").objectStore("lectures").get(name)) : undefined;
    }

    /** Entries that were kept of it. */
    async records(name) {
        return this.database ? done(this.database.transaction("records").objectStore("records").getAll(all(name))) : [];
    }

    /**
     * Changes the disk. If that fails, it removes the lecture from the disk: a key without its last entries must not be used again.
     * If even that fails, so does this.
     */
    async change(name, what) {
        if (!this.database) {
            return;
        }
        try {
            const transaction = this.database.transaction(["lectures", "records"], "readwrite", { durability: "strict" });
            what(transaction.objectStore("lectures"), transaction.objectStore("records"));
            await ended(transaction);
        } catch (error) {
            if (this.database) {
                const forgetting = this.database.transaction("lectures", "readwrite");
                forgetting.objectStore("lectures").delete(name);
                await ended(forgetting);
            }
            this.lose(error);
        }
    }

    /** Key, settings and slides of a lecture. */
    put(lecture) {
        return this.change(lecture.name, (lectures) => lectures.put({ ...lecture, changed: Date.now() }, lecture.name));
    }

    /** Entries, before they are sent. */
    keep(name, records) {
        return this.change(name, (_, kept) => records.forEach(({ id, bytes }) => kept.put(bytes, [name, id])));
    }

    /** Pictures of a lecture that are kept, by the names of their files. */
    async files(name) {
        const store = this.images?.transaction("files").objectStore("files");
        const found = store ? await Promise.all([done(store.getAllKeys(all(name))), done(store.getAll(all(name)))]) : [[], []];
        return new Map(found[0].map(([, file], at) => [file, found[1][at]]));
    }

    /** A picture, by the name of its file. Whether it is kept. */
    async keepFile(name, file, bytes) {
        try {
            const transaction = this.images.transaction("files", "readwrite");
            transaction.objectStore("files").put(bytes, [name, file]);
            await ended(transaction);
            return true;
        } catch {
            return false;
        }
    }

    /** Nothing of it is kept here any more. */
    remove(name) {
        this.images?.transaction("files", "readwrite").objectStore("files").delete(all(name));
        return this.change(name, (lectures, records) => {
            lectures.delete(name);
            records.delete(all(name));
        });
    }
}
