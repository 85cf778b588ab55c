import { Button, Dialog, DialogActions, DialogBody, DialogContent, DialogSurface, DialogTitle } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'

interface Props {
  title: string
  text: string
  act: string
  confirm: () => void
  close: () => void
}

/** Asks before something that cannot be taken back. */
export function Confirm({ title, text, act, confirm, close }: Props) {
  const { t } = useTranslation()
  return (
    <Dialog open modalType="alert" onOpenChange={(_, d) => !d.open && close()}>
      <DialogSurface>
        <DialogBody>
          <DialogTitle>{title}</DialogTitle>
          <DialogContent>{text}</DialogContent>
          <DialogActions>
            <Button appearance="primary" onClick={confirm} data-testid="confirm">{act}</Button>
            <Button onClick={close}>{t('action.cancel')}</Button>
          </DialogActions>
        </DialogBody>
      </DialogSurface>
    </Dialog>
  )
}
