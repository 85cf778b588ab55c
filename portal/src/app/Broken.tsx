import { Button } from '@fluentui/react-components'
import { ErrorCircleRegular } from '@fluentui/react-icons/svg/error-circle'
import { useTranslation } from 'react-i18next'
import { Empty } from '../ui/states'

/**
 * A page that could not be shown: mostly a script of an older build that the
 * control plane no longer has, which loading the page anew repairs.
 */
export function Broken() {
  const { t } = useTranslation()
  return (
    <Empty
      icon={<ErrorCircleRegular />} title={t('broken.title')}
      action={<Button appearance="primary" onClick={() => window.location.reload()}>{t('broken.reload')}</Button>}
    >
      {t('broken.text')}
    </Empty>
  )
}
