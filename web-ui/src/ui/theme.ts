import { createTheme, type CSSVariablesResolver, DEFAULT_THEME, type MantineColorsTuple, Modal, Notification } from '@mantine/core';

/** The darkest shade of a colour, dark enough for small text on white (WCAG AA: 4.5 to 1). */
function withDarkest(name: string, darkest: string): MantineColorsTuple {
  return [...(DEFAULT_THEME.colors[name] ?? []).slice(0, 9), darkest] as unknown as MantineColorsTuple;
}

export const theme = createTheme({
  fontFamily: 'system-ui, sans-serif',
  defaultRadius: 'sm',
  components: {
    // Locking the scroll bar writes a style without a nonce.
    Modal: Modal.extend({ defaultProps: { lockScroll: false, transitionProps: { duration: 0 }, closeButtonProps: { 'aria-label': 'Close' } } }),
    Notification: Notification.extend({ defaultProps: { closeButtonProps: { 'aria-label': 'Close' } } }),
  },
  primaryShade: { light: 9, dark: 7 },
  colors: {
    green: withDarkest('green', '#237032'),
    orange: withDarkest('orange', '#b03a08'),
    yellow: withDarkest('yellow', '#8a5a00'),
    red: withDarkest('red', '#c92a2a'),
  },
});

/** Mantine's own greys are too light for small text. */
export const variables: CSSVariablesResolver = () => ({
  variables: {},
  light: { '--mantine-color-error': '#c92a2a', '--mantine-color-dimmed': '#495057', '--mantine-color-placeholder': '#5c636a' },
  dark: { '--mantine-color-dimmed': '#a6a7ab', '--mantine-color-placeholder': '#a6a7ab' },
});
