// This browser's store of notes: entries before they are sent, changes that are not entries yet, the key that writes. Each tab has a
// key of its own, as a key is for one host at a time: a lock holds its place until the tab is gone, however it ends.

import { all, done, ended, openDatabase, reason } from "./disk.js";

const DATABASE = "lcroute studio";
const LOCK = "lcroute notes";
/** Most tabs of a session in one browser that keep something. */
const MAX_TABS = 32;

/** Places of this tab, by session: a lock is held until the tab is gone. */
const places = new Map();

/** Whether nobody had this place, which is ours from now on, or as long as `use` takes. */
function claim(name, place, use = null) {
    return new Promise((resolve, reject) => {
        const held = async (lock) => {
            if (lock && use) {
                await use();
            }
            resolve(lock !== null);
            return lock && !use ? new Promise(() => {}) : null;
        };
        navigator.locks.request(`${LOCK} ${name} ${place}`, { ifAvailable: true }, held).catch(reject);
    });
}

async function ownPlace(name) {
    for (let place = 0; !places.has(name) && place < MAX_TABS; place += 1) {
        if (await claim(name, place)) {
            places.set(name, place);
        }
    }
    if (!places.has(name)) {
        throw new Error("too many tabs write these notes");
    }
    return places.get(name);
}

export class NotesStore {
    /** The stored data of this session. Without a store, it names the reason, and goes on. */
    static async open(name) {
        const store = new NotesStore(name);
        try {
            store.database = await openDatabase(DATABASE, ["keys", "records", "drafts"]);
            store.place = await ownPlace(name);
            await store.load();
        } catch (error) {
            store.lose(error);
        }
        return store;
    }

    constructor(name) {
        Object.assign(this, { name, why: null, key: crypto.getRandomValues(new Uint8Array(32)), records: [], drafts: [] });
    }

    /** `error`: nothing is kept from now on. */
    lose(error) {
        this.database?.close();
        this.database = null;
        this.why = reason(error);
    }

    transaction(...stores) {
        return this.database.transaction(stores, "readwrite", { durability: "strict" });
    }

    async load() {
        const { name, place } = this;
        const read = this.database.transaction(["keys", "records"]);
        const [key, records] = await Promise.all([done(read.objectStore("keys").get([name, place])), done(read.objectStore("records").getAll(all(name)))]);
        this.key = key ?? this.key;
        this.records = records;
        await this.adopt();
        const drafts = this.database.transaction("drafts").objectStore("drafts");
        const range = IDBKeyRange.bound([name, place], [name, place, []]);
        const [keys, values] = await Promise.all([done(drafts.getAllKeys(range)), done(drafts.getAll(range))]);
        this.drafts = values.map((value, at) => ({ ...value, id: keys[at][2] }));
    }

    /** Data of closed tabs becomes ours. */
    async adopt() {
        const { name, place } = this;
        const keys = await done(this.database.transaction("drafts").objectStore("drafts").getAllKeys(all(name)));
        const others = new Set(keys.map(([, other]) => other).filter((other) => other !== place));
        let next = keys.reduce((most, [, other, id]) => (other === place ? Math.max(most, id) : most), 0) + 1;
        for (const other of others) {
            await claim(name, other, async () => {
                const moving = this.transaction("drafts");
                const drafts = moving.objectStore("drafts");
                for (const [, , id] of keys.filter(([, owner]) => owner === other)) {
                    drafts.get([name, other, id]).onsuccess = ({ target }) => {
                        if (target.result) {
                            drafts.put(target.result, [name, place, next++]);
                            drafts.delete([name, other, id]);
                        }
                    };
                }
                await ended(moving);
            });
        }
    }

    /** Does something to the disk. Where that fails, nothing is kept any more, and this tab's key is not used again after it. */
    async change(stores, what) {
        if (!this.database) {
            return;
        }
        try {
            const transaction = this.transaction(...stores);
            what(transaction);
            await ended(transaction);
        } catch (error) {
            const database = this.database;
            if (database) {
                const forgetting = database.transaction("keys", "readwrite");
                forgetting.objectStore("keys").delete([this.name, this.place]);
                await ended(forgetting);
            }
            this.lose(error);
        }
    }

    /** The notes were opened: there is something to keep. */
    begin() {
        return this.change(["keys"], (disk) => disk.objectStore("keys").put(this.key, [this.name, this.place]));
    }

    /** A change that is no entry yet. */
    draft(id, body, changes) {
        return this.change(["drafts"], (disk) => disk.objectStore("drafts").put({ body, changes }, [this.name, this.place, id]));
    }

    /** Records of logs, and drafts that are among them now. */
    keep(records, drafts) {
        return this.change(["records", "drafts"], (disk) => {
            records.forEach(({ id, kind, bytes }) => disk.objectStore("records").put({ kind, bytes }, [this.name, id]));
            drafts.forEach((id) => disk.objectStore("drafts").delete([this.name, this.place, id]));
        });
    }

    /** Nothing of this session is kept here any more. */
    async forget() {
        await this.change(["keys", "records", "drafts"], (disk) => ["keys", "records", "drafts"].forEach((store) => disk.objectStore(store).delete(all(this.name))));
        this.lose(new Error("you had them removed from it"));
    }
}
