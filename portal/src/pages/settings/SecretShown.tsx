import { Button, Dialog, DialogActions, DialogBody, DialogContent, DialogSurface, DialogTitle, makeStyles, MessageBar, MessageBarBody, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import { Copyable } from '../../ui/Copy'

const useStyles = makeStyles({ content: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL } })

/** A secret that is shown this once: only its digest is kept. */
export function SecretShown({ title, warning, label, secret, close }: { title: string; warning: string; label: string; secret: string; close: () => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  return (
    <Dialog open modalType="alert">
      <DialogSurface data-testid="secret-dialog">
        <DialogBody>
          <DialogTitle>{title}</DialogTitle>
          <DialogContent className={styles.content}>
            <MessageBar intent="warning" layout="multiline"><MessageBarBody>{warning}</MessageBarBody></MessageBar>
            <Copyable text={secret} label={label} testid="secret" />
          </DialogContent>
          <DialogActions><Button appearance="primary" onClick={close} data-testid="secret-done">{t('action.done')}</Button></DialogActions>
        </DialogBody>
      </DialogSurface>
    </Dialog>
  )
}
