# Some versions of the OS have a hook that calls `balena-extension-manager update`. This manager has no such command,
# and a hook that fails cancels the update. Where the hook is not installed, this changes nothing.
HOSTAPP_HOOKS:remove = "85-os-blocks-extensions/85-after_os-blocks-extensions"
