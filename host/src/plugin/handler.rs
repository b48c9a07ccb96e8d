//! `aviary:bot/handler`: how a bot is asked about a message.

use std::sync::atomic::{AtomicBool, Ordering};

use wasmtime::{
    Store,
    component::{ComponentExportIndex, Instance, InstancePre, TypedFunc},
};

use super::{
    bindings::{Message, Reply},
    guest::Guest,
};

/// `handle` of one component, found when the component is loaded.
///
/// The bindings that `wit/` is made into compare its type with ours in every instance: the names of all fields and cases of
/// a message. That comes out alike for every instance of a component, so here it is done once; it was about a fifth of a small
/// guest's call (`tests/load/README.md`).
pub(super) struct Handler {
    component: InstancePre<Guest>,
    handle: ComponentExportIndex,
    is_checked: AtomicBool,
}

/// `handle: func(message: message) -> result<option<reply>, string>`
type Handle<'a> = TypedFunc<(&'a Message,), (Result<Option<Reply>, String>,)>;

impl Handler {
    /// Finds the function in a component that exports the interface as `export`. Its type is not looked at yet.
    pub(super) fn of(component: &InstancePre<Guest>, export: &str) -> wasmtime::Result<Self> {
        let missing = || wasmtime::format_err!("`{export}` has no function `handle`");
        let interface = component.component().get_export_index(None, export).ok_or_else(missing)?;
        let handle = component.component().get_export_index(Some(&interface), "handle").ok_or_else(missing)?;
        Ok(Self { component: component.clone(), handle, is_checked: AtomicBool::new(false) })
    }

    /// Asks a fresh instance.
    ///
    /// # Errors
    /// The guest could not be instantiated, it trapped, or its `handle` has another type than ours.
    pub(super) async fn ask(
        &self,
        store: &mut Store<Guest>,
        message: &Message,
    ) -> wasmtime::Result<Result<Option<Reply>, String>> {
        let instance = self.component.instantiate_async(&mut *store).await?;
        let handle = self.typed(store, &instance)?;
        let (answer,) = handle.call_async(&mut *store, (message,)).await?;
        Ok(answer)
    }

    /// Compares the type of an instance's function with ours.
    pub(super) fn check(&self, store: &mut Store<Guest>, instance: &Instance) -> wasmtime::Result<()> {
        let _: Handle<'_> = instance.get_typed_func(store, self.handle)?;
        self.is_checked.store(true, Ordering::Release);
        Ok(())
    }

    #[expect(unsafe_code, reason = "wasmtime offers no other way to compare a type once for all instances")]
    fn typed<'a>(&self, store: &mut Store<Guest>, instance: &Instance) -> wasmtime::Result<Handle<'a>> {
        if !self.is_checked.load(Ordering::Acquire) {
            self.check(store, instance)?;
        }
        let missing = || wasmtime::format_err!("its function `handle` is gone");
        let handle = instance.get_func(store, self.handle).ok_or_else(missing)?;
        // SAFETY: `check` found this type in an instance of this very component, and `handle` names nothing in another one:
        // wasmtime compares the component that an index was found in. An export's type is its component's, and the types
        // here hold no resources, which alone differ from instance to instance.
        Ok(unsafe { TypedFunc::new_unchecked(handle) })
    }
}
